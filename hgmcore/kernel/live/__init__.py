"""Sequences of operations on the running kernel, compared with the simulator (Linux, root).

`sequences` makes them at random, `given` reads one from a file; `session` does them in processes of its own
(`processes`, `worker`) on files of its own (`files`), by system calls (`kernel`), and says what the kernel shows
(`observe`) as the steps of a kernel recording; `run` has the simulator do the same and compares; `shrink` finds the
shortest sequence that differs; `timing` times both; `costs` times single operations for `calibrate --kernel`, by
`calls`, which is compiled. `conditions` says whether all this can run. No setting is changed,
except by hugetlb; nothing stays behind.
"""

from hgmcore.kernel.live.conditions import missing
from hgmcore.kernel.live.report import live_text
from hgmcore.kernel.live.run import validate_live, validate_sequence

__all__ = ["live_text", "missing", "validate_live", "validate_sequence"]
