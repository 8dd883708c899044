"""A CIFAR-shaped data set of random prototypes, for tests: no files, learnable in few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from skd.data.images import DatasetFacts, Images

NUM_CLASSES, TRAIN_IMAGES, TEST_IMAGES, SIZE = 10, 272, 100, 32
FACTS = DatasetFacts(
    num_classes=NUM_CLASSES, train_images=TRAIN_IMAGES, test_images=TEST_IMAGES, size=SIZE
)


def load(root: Path) -> Images:
    """Generate the images: each is its class's prototype plus noise. ``root`` is not used."""
    random = np.random.Generator(np.random.Philox(key=100))
    prototypes = random.integers(0, 256, (NUM_CLASSES, 3, SIZE, SIZE))

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = np.arange(count) % NUM_CLASSES
        noise = random.integers(-64, 65, (count, 3, SIZE, SIZE))
        pixels = np.clip(prototypes[labels] + noise, 0, 255).astype(np.uint8)
        return torch.from_numpy(pixels), torch.from_numpy(labels)

    train_images, train_labels = part(TRAIN_IMAGES)
    test_images, test_labels = part(TEST_IMAGES)
    return Images(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=tuple(f"class {index}" for index in range(NUM_CLASSES)),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
