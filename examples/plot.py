"""A comparison drawn: counted costs, times and errors of all schemes as an SVG file. Needs matplotlib.

Prints the name of the file and how large it is.
"""
import sys
from pathlib import Path

import hgmcore as hgm
from hgmcore.report.plot import image

result = hgm.compare(hgm.workloads.random(page_size="2M", pages=4, seed=1), schemes="all")
target = Path(sys.argv[1] if len(sys.argv) > 1 else "comparison.svg")
target.write_bytes(image(result, "svg"))
print(target.name, target.stat().st_size > 10_000 and "drawn")
