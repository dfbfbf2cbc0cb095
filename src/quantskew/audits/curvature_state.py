"""How far the measurement of a loss surface has come, on disk after each step."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from quantskew.base.files import write_bytes

_KEY = "quantskew.curvature"


class CurvatureState:
    """What has been measured so far; the rest is NaN.

    Parameters
    ----------
    precisions : int
        How many.
    images : sequence of int, length G
        How many of each group are used.
    path : path, optional
        A file that is replaced after each step, and is gone on with where there is one.
    run : str, optional
        Digest of model and settings: another run's file is refused.

    Raises
    ------
    ValueError
        If the file is not whole, or belongs to another run.
    """

    def __init__(self, precisions, images, path=None, run=None):
        self.path, self.run = path, run
        shape = (precisions, len(images))
        names = ("gradient_norms", "lambda_max", "residuals", "traces", "trace_errors")
        self.arrays = {name: np.full(shape, np.nan) for name in names}
        self.arrays |= {
            "images": np.array(images, dtype=np.int64),
            "matvecs": np.zeros(shape, dtype=np.int64),
            "change_norms": np.full(precisions, np.nan),
        }
        if path is not None and Path(path).exists():
            self._restore()

    def _restore(self):
        try:
            with safe_open(self.path, framework="np") as file:
                run = (file.metadata() or {}).get(_KEY)
                arrays = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{self.path} is not a whole checkpoint ({error}); delete it to begin anew"
            ) from error
        if run != self.run:
            raise ValueError(f"{self.path} belongs to another model or other settings; delete it")
        self.arrays = arrays

    def done(self, row):
        """Groups whose eigenvalue at this precision is known."""
        return np.flatnonzero(~np.isnan(self.arrays["trace_errors"][row])).tolist()

    def put(self, where, **values):
        """Take what was measured at that place of the arrays, and keep all on disk."""
        for name, value in values.items():
            self.arrays[name][where] = value
        if self.path is not None:
            write_bytes(self.path, save(self.arrays, {_KEY: self.run}))
