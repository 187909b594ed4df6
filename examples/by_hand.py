"""A trace written by hand, compared under three schemes.

Two processes map one 2M page of hugetlb, the first in two pieces, the second whole. Prints for each scheme
the errors against its own definition, and how many base pages have a wrong map count when most have.
"""
import hgmcore as hgm

trace = hgm.Trace.parse("""\
hgmcore-trace 1
file F 2M 1
populate F 0 1
mmap A v F 0 2M shared minor hgm
continue A v 0 8K
observe
mmap B w F 0 2M shared
touch B w 0
observe
""")
comparison = hgm.compare(trace, schemes=["head_per_leaf", "subtree", "logical_counter"])
for name, scheme in comparison["schemes"].items():
    errors = scheme["errors"]
    wrong = errors["per_page"].get("page_mapcount_wrong_pages", {"worst": 0})
    print(name, sorted(errors["own"]), wrong["worst"])
