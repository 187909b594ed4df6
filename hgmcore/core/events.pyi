import numpy as np
from numpy.typing import NDArray

from hgmcore.core.core import Core, Engine
from hgmcore.core.records import Records

NAMES: tuple[str, ...]
EVENTS: np.dtype[np.void]
LINE: np.dtype[np.void]

class Events:
    @property
    def cpus(self) -> int: ...
    def __new__(cls, core: Core, engine: Engine, lines: int, cpus: int = ...) -> Events: ...
    def forget_writers(self) -> None: ...
    def run(self, operations: Records | NDArray[np.void], cpu: NDArray[np.uint16] | None = None, index: int = 0
            ) -> NDArray[np.void]: ...
    def lines(self) -> NDArray[np.void]: ...
