"""Photos that stay on the disk, indexed like a tensor of images."""

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
        paths: paths relative to `root`, (N,) NumPy bytes of fixed width. This is one block of
            memory; a list of 1.28 million strings would be copied page by page into each loader
            process.
        size: height and width of the photos' views, in pixels.
    """

    root: Path
    paths: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Tensor | np.ndarray | slice) -> PhotoFiles:
        """Return some of the files, in the order of the indices."""
        selected = indices.cpu().numpy() if isinstance(indices, Tensor) else indices
        return replace(self, paths=np.ascontiguousarray(self.paths[selected]))

    def path(self, index: int) -> Path:
        """Return the path of one file."""
        return self.root / os.fsdecode(bytes(self.paths[index]))
