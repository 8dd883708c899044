"""The training loop of common practice, as in the code of most distillation papers.

Images are loaded one by one with PIL in worker processes. The teacher's forward pass is part of
every step. Execution is eager, in float32 and the default memory format, with default SGD. Metrics
wait for the device at every step. The benchmark compares the loops, so the losses are this
project's terms, except CRD, which commonly gathers the bank entries of its negatives
(`benchmarks.sides.gathered_crd`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.sides.average_meter import AverageMeter, update_meters
from benchmarks.sides.gathered_crd import BatchWithNegatives, GatheredCRD
from benchmarks.sides.pil_dataset import test_loader, train_loader
from benchmarks.sides.side_base import SideBase
from benchmarks.sides.teacher import build_teacher, normalised_images
from skd.data import load_dataset
from skd.data.images import Images
from skd.losses.objective import Objective, trainable_parameters
from skd.losses.teacher_modules import TeacherModules
from skd.losses.term import Batch, NetworkReference, TermContext
from skd.models import FeatureNetwork, build_model
from skd.models.network import dry_pass
from skd.randomness import Draws, seeded
from skd.study.spec import RunSpec
from skd.training.data_parallel import with_classifier

MAX_WORKERS = 8
CRD = "crd"


def build(case: BenchmarkCase, options: SideOptions) -> PlainLoop:
    """Return the side of a comparison. Enables cuDNN's benchmark mode, as is common.

    Raises:
        DataError: the data set is missing.
        UnfitError: the method does not work on these networks.
    """
    torch.backends.cudnn.benchmark = True
    device, images = torch.device(options.device), load_dataset(case.spec.dataset)
    teacher, weights = build_teacher(case, options, images, device)
    workers = options.workers
    if workers is None:
        workers = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    loop = PlainLoop(case.spec, images, teacher, device, workers)
    loop.teacher_weights = weights
    return loop


class PlainLoop(SideBase):
    """The training of one run for any number of steps.

    Args:
        spec: the run; its learning rate stays that of the first epoch.
        images: its data set.
        teacher: frozen, on the device; ``None`` if the method needs no teacher.
        device: the device.
        workers: number of workers of the training loader; the test loader has half as many.
    """

    def __init__(
        self,
        spec: RunSpec,
        images: Images,
        teacher: FeatureNetwork | None,
        device: torch.device,
        workers: int,
    ) -> None:
        self.spec, self.teacher, self.device, self.workers = spec, teacher, device, workers
        self.teacher_weights: str | None = None
        with seeded(spec.seed, "weights"):
            self.student = build_model(spec.network, images.num_classes).to(device)
        self.objective, negatives = self._objective(images)
        self.optimizer = self._optimizer()
        batch_size, pin = spec.recipe.batch_size, device.type == "cuda"
        self.train = train_loader(images, batch_size, workers, pin, negatives)
        self.test = test_loader(images, batch_size, (workers + 1) // 2, pin)
        self.draws = Draws(spec.seed, device)
        self.epoch, self.steps = 0, 0
        self._batches: Iterator = iter(())
        self.meters = {name: AverageMeter() for name in ("loss", "top1", "top5")}
        self.tested: dict[str, float] = {}

    def step(self) -> None:
        """Wait for the loader, train one step, read loss and accuracies."""
        self.student.train()
        images, target, indices, *negatives = self._next_batch()
        total, logits = self.losses(images, target, indices, *negatives)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        update_meters(self.meters, total.item(), logits.detach(), target)
        self.steps += 1

    def losses(
        self, images: Tensor, target: Tensor, indices: Tensor, negatives: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the total loss, a scalar, and the student's logits (B, C).

        Args:
            images: normalised, on the device like all others, (B, 3, H, W).
            target: class labels, (B,).
            indices: indices of the images in the training set, (B,).
            negatives: indices of negatives, (B, K); only for methods whose terms need them.
        """
        teacher = None
        if self.teacher is not None:
            with torch.no_grad():
                teacher = self.teacher.forward_features(images)
        student = self.student.forward_features(images)
        draws = self.draws.set_step(max(self.epoch, 1), self.steps)
        batch = Batch(student, teacher, target, indices, max(self.epoch, 1), draws)
        if negatives is not None:
            batch = BatchWithNegatives(**vars(batch), negatives=negatives)
        losses = self.objective(batch)
        return losses.total, losses.logits

    @torch.no_grad()
    def evaluate(self) -> None:
        """Measure loss and accuracies on the test images, batch by batch."""
        network = with_classifier(self.student, self.objective).eval()
        meters = {name: AverageMeter() for name in self.meters}
        for images, target, _ in self.test:
            images, target = self._moved(images), self._moved(target)
            logits = network(images)
            update_meters(meters, F.cross_entropy(logits, target).item(), logits, target)
        self.tested = {name: meter.mean for name, meter in meters.items()}
        network.train()

    def describe(self) -> dict[str, Any]:
        """Return how it trains."""
        tf32 = self.device.type == "cuda" and torch.backends.cudnn.allow_tf32
        return {
            "teacher": "none" if self.teacher is None else "live",
            "teacher_weights": self.teacher_weights,
            "precision": "tf32" if tf32 else "float32",
            "memory_format": "contiguous",
            "workers": self.workers,
        }

    def _next_batch(self) -> list[Tensor]:
        batch = next(self._batches, None)
        if batch is None:
            self.epoch += 1
            self._batches = iter(self.train)
            batch = next(self._batches)
        return [self._moved(part) for part in batch]

    def _moved(self, part: Tensor) -> Tensor:
        return part.to(self.device, non_blocking=True)

    def _objective(self, images: Images) -> tuple[Objective, int | None]:
        """Return the method's losses, and the number of negatives that the loader draws."""
        example = normalised_images(images, 2).to(self.device)
        context = TermContext(
            num_classes=images.num_classes,
            train_labels=images.train_labels,
            seed=self.spec.seed,
            student=dry_pass(self.student, example),
            teacher=None if self.teacher is None else dry_pass(self.teacher, example),
            teacher_modules=None if self.teacher is None else TeacherModules(self.teacher),
            network=NetworkReference(self.student),
        )
        objective, negatives = Objective(self.spec.method, context), None
        labels = [*objective.terms]
        for label, term in zip(labels, self.spec.method.terms, strict=True):
            if term.term == CRD:
                settings = objective.terms[label].settings
                with seeded(self.spec.seed, f"weights of {label}"):
                    objective.terms[label] = GatheredCRD(settings, context)
                negatives = settings.negatives
        objective.begin_epoch(1, self.device)
        return objective.to(self.device), negatives

    def _optimizer(self) -> torch.optim.SGD:
        recipe = self.spec.recipe
        groups = [{"params": trainable_parameters(self.student)}]
        for group in self.objective.parameter_groups():
            rate = recipe.learning_rate * group.learning_rate_multiplier
            groups.append({"params": group.parameters, "lr": rate})
        return torch.optim.SGD(
            groups,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
