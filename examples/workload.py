"""A generated workload under two schemes: the postcopy migration of one 1G page.

Prints for each scheme the atomic operations on reference and map counts that it took.
"""
import hgmcore as hgm

trace = hgm.workloads.postcopy(page_size="1G", pages=1, seed=1)
for scheme in ("head_per_leaf", "logical_counter"):
    machine = hgm.replay(trace, scheme)
    print(scheme, machine["cost"]["atomics"])
