"""CIFAR-100 (Krizhevsky 2009), through torchvision's class and its MD5 check."""

from __future__ import annotations

import tarfile
from pathlib import Path

import torch

from skd.common.lease import hold_lease
from skd.data.images import DataError, DatasetFacts, Images

FACTS = DatasetFacts(num_classes=100, train_images=50_000, test_images=10_000, size=32)


def load(root: Path) -> Images:
    """Load CIFAR-100 from ``root/cifar-100-python``; download it first if it is missing.

    Raises:
        DataError: it is missing and cannot be downloaded.
    """
    from torchvision.datasets import CIFAR100  # takes seconds to import; FACTS does not need it

    try:
        if not (root / CIFAR100.base_folder / "train").is_file():
            # One process at a time: torchvision writes straight to the file.
            with hold_lease(root, wait=True):
                CIFAR100(root, download=True)
        train, test = CIFAR100(root, train=True), CIFAR100(root, train=False)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        raise DataError(
            f"CIFAR-100 is not in {root}/cifar-100-python and cannot be downloaded ({error}). Put "
            "the official files there, or set SKD_DATA to the folder that contains "
            "cifar-100-python."
        ) from error
    return Images(
        train_images=torch.from_numpy(train.data).permute(0, 3, 1, 2).contiguous(),
        train_labels=torch.tensor(train.targets),
        test_images=torch.from_numpy(test.data).permute(0, 3, 1, 2).contiguous(),
        test_labels=torch.tensor(test.targets),
        classes=tuple(train.classes),
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    )
