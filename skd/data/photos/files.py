"""Photos that stay on the disk: their places, indexed as a tensor of images would be."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PhotoFiles:
    """Files of photos under one folder.

    Attributes:
        root: the folder.
        paths: relative to it, (N,) NumPy bytes of fixed width: one block of memory, where a list of
            1.28 million strings would be copied page by page into each loader process.
        size: height and width in pixels of the views that are made of them.
    """

    root: Path
    paths: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, places: Tensor | np.ndarray | slice) -> PhotoFiles:
        """Return some of the files, in the order of the places."""
        chosen = places.cpu().numpy() if isinstance(places, Tensor) else places
        return replace(self, paths=np.ascontiguousarray(self.paths[chosen]))

    def path(self, place: int) -> Path:
        """Return where one file is."""
        return self.root / os.fsdecode(bytes(self.paths[place]))
