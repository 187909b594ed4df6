import numpy as np
from numpy.typing import NDArray

SHARE: np.dtype[np.void]
PART: np.dtype[np.void]

def said_of(leaves: dict[str, NDArray[np.int64]], counts: tuple[NDArray[np.int64], NDArray[np.int64]],
            true: tuple[NDArray[np.int64], NDArray[np.int64]], folios: dict[str, NDArray[np.int64]], page: float
            ) -> tuple[NDArray[np.void], NDArray[np.int64], NDArray[np.void], NDArray[np.int64]]: ...
