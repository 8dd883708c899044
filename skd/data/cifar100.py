"""CIFAR-100 (Krizhevsky 2009), through torchvision's class and its MD5 check."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets import CIFAR100

from skd.data.images import DataError, Images


def load(root: Path) -> Images:
    """Load CIFAR-100 from ``root/cifar-100-python``, downloaded first where it is missing.

    Raises:
        DataError: not there, and not to be downloaded.
    """
    try:
        train = CIFAR100(root, train=True, download=True)
        test = CIFAR100(root, train=False)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-100 is neither under {root}/cifar-100-python nor can it be downloaded "
            f"({error}). Put the official files there, or point SKD_DATA at the folder that "
            "holds cifar-100-python."
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
