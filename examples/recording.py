"""A recording that ships with the package: what is in it.

Prints where it comes from, how many operations it has, and which are the most frequent.
"""
from collections import Counter

from hgmcore import recordings
from hgmcore.trace.statements import NAMES

trace = recordings.load("postgres_hugepages_pgbench")
print(trace.header.provenance.get("recorder", "no recorder named"))
print(len(trace.operations), "operations")
for code, count in Counter(trace.operations["op"].tolist()).most_common(3):
    print(NAMES[code], count)
