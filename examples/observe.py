"""One huge page mapped in pieces, under one scheme: what the scheme's counts say, beside the recounted truth.

Prints the map count that head_per_leaf keeps (one for each leaf) and the number of mappings that there really are.
"""
import numpy as np

import hgmcore as hgm

machine = hgm.Machine("head_per_leaf")
file = machine.file("F", page_size="1G", pages=1, populate=True)
mapping = machine.process("A").mmap(file, minor=True)
mapping.split()    # MADV_SPLIT: from here on pieces may be mapped
mapping.uffd_continue(np.arange(1000) * 4096)    # UFFDIO_CONTINUE of 1000 pieces of 4K, in one call
folio = machine.observe()["folios"][0]
print(f"mapcount {folio['mapcount']}, mappings {folio['truth']['mappings']}")
