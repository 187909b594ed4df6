from typing import Any

from hgmcore.core.core import Engine

ABI: int
SIZE: int
ADDRESSES: dict[str, int]

class TableEngine(Engine):
    @property
    def owner(self) -> Any: ...
    def failure(self) -> BaseException | None: ...

def engine_at(address: int, owner: Any = None, *, python: bool = False) -> Engine: ...
def capsule_address(capsule: object) -> int: ...
