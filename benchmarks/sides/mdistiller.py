"""mdistiller, from a checkout outside this repository: its data, networks, losses and loop.

https://github.com/megvii-research/mdistiller. Its code runs unchanged, through the trainer's
``train_iter`` and its ``validate``; `describe` returns the settings. It needs its own process,
because its modules are global and, without a GPU, ``.cuda()`` is replaced globally.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.sides.mdistiller_checkout import (
    checkout_commit,
    checkout_folder,
    config_file,
    disable_cuda_calls,
    import_from_checkout,
    make_importable,
)
from benchmarks.sides.side_base import SideBase
from benchmarks.sides.teacher import (
    RANDOM,
    SETTLING_IMAGES,
    initialise_batch_norm,
    normalised_images,
)
from skd.common.errors import UnfitError, suggest
from skd.data import data_root, load_dataset
from skd.data.images import Images
from skd.study.spec import DatasetSpec

# mdistiller's types by our method names. It uses its own settings of each, not the study's.
TYPES = {"student": "NONE", "kd": "KD", "dkd": "DKD", "crd": "CRD", "reviewkd": "REVIEWKD"}
DATASET = DatasetSpec(name="cifar100")


def build(case: BenchmarkCase, options: SideOptions) -> Mdistiller:
    """Return the side of a comparison.

    Raises:
        BenchError: no path was given, there is no checkout, or a required package is missing.
        UnfitError: mdistiller has no such method, network or data set.
    """
    if case.method not in TYPES:
        raise UnfitError(f"mdistiller has no '{case.method}'{suggest(case.method, TYPES)}")
    if case.spec.dataset != DATASET:
        raise UnfitError("only CIFAR-100 with all images is compared with mdistiller")
    root = checkout_folder(options)
    images = load_dataset(case.spec.dataset)
    torch.backends.cudnn.benchmark = True  # as in its tools/train.py
    if options.device == "cpu":
        disable_cuda_calls()
    make_importable(root, options.mdistiller_site)
    return Mdistiller(case, options, root, images)


class Mdistiller(SideBase):
    """mdistiller's trainer, run step by step."""

    def __init__(
        self, case: BenchmarkCase, options: SideOptions, root: Path, images: Images
    ) -> None:
        self.device = torch.device(options.device)
        self._root, self._scratch = root, tempfile.TemporaryDirectory()
        kind, student = TYPES[case.method], case.spec.network
        teacher = case.spec.teacher.network if case.spec.teacher else None
        self._config = config_file(root, kind, teacher, student)
        networks = import_from_checkout("mdistiller.models").cifar_model_dict
        for name in (student, *([teacher] if teacher else [])):
            if name not in networks:
                raise UnfitError(f"mdistiller has no network '{name}'{suggest(name, networks)}")
        own = networks[student][0](num_classes=images.num_classes)
        batch, parts, sizes = normalised_images(images, SETTLING_IMAGES), [own], {}
        if teacher:
            parts.append(networks[teacher][0](num_classes=images.num_classes))
            initialise_batch_norm(parts[1], batch)
            sizes = _sizes(kind, own, parts[1], batch[:2])
        self.cfg = self._configured(case, options, sizes)
        self._trainer = self._make_trainer(kind, parts)
        self._utils = import_from_checkout("mdistiller.engine.utils")
        self._bar = import_from_checkout("tqdm").tqdm(total=None)
        names = ("training_time", "data_time", "losses", "top1", "top5")
        self._meters = {name: self._utils.AverageMeter() for name in names}
        self._batches = iter(self._trainer.train_loader)
        self._trainer.distiller.train()

    def step(self) -> None:
        """Do what its train_epoch does for a batch."""
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._trainer.train_loader)
            batch = next(self._batches)
        message = self._trainer.train_iter(batch, 1, self._meters)
        self._bar.set_description(self._utils.log_msg(message, "TRAIN"))
        self._bar.update()

    def evaluate(self) -> None:
        """Do what its train_epoch does after the steps."""
        self._utils.validate(self._trainer.val_loader, self._trainer.distiller)
        self._trainer.distiller.train()

    def describe(self) -> dict[str, Any]:
        """Return how it trains, with its configuration file and commit."""
        tf32 = self.device.type == "cuda" and torch.backends.cudnn.allow_tf32
        plain = self.cfg.DISTILLER.TYPE == "NONE"
        return {
            "teacher": "none" if plain else "live",
            "teacher_weights": None if plain else RANDOM,
            "precision": "tf32" if tf32 else "float32",
            "memory_format": "contiguous",
            "workers": self.cfg.DATASET.NUM_WORKERS,
            "config": str(self._config.relative_to(self._root)),
            "commit": checkout_commit(self._root),
        }

    def _configured(self, case: BenchmarkCase, options: SideOptions, sizes: dict[str, Any]) -> Any:
        """Return the file's configuration, changed for the pair and with few logs."""
        cfg = import_from_checkout("mdistiller.engine.cfg").CFG.clone()
        cfg.merge_from_file(str(self._config))
        changed = {
            "DISTILLER.STUDENT": case.spec.network,
            "SOLVER.BATCH_SIZE": case.batch_size,
            "SOLVER.LR": case.spec.recipe.learning_rate,
            "LOG.WANDB": False,
            "LOG.PREFIX": self._scratch.name,
            **sizes,
        }
        if case.spec.teacher:
            changed["DISTILLER.TEACHER"] = case.spec.teacher.network
        if options.workers is not None:
            changed["DATASET.NUM_WORKERS"] = options.workers
        cfg.merge_from_list([part for item in changed.items() for part in item])
        cfg.freeze()
        return cfg

    def _make_trainer(self, kind: str, parts: list[nn.Module]) -> Any:
        """Do what its tools/train.py does, with the data set in our data folder."""
        folder = str(data_root().resolve())
        import_from_checkout("mdistiller.dataset.cifar100").get_data_folder = lambda: folder
        train, test, count, _ = import_from_checkout("mdistiller.dataset").get_dataset(self.cfg)
        arguments = [] if kind == "NONE" else [self.cfg]
        arguments += [count] if kind == "CRD" else []
        distiller = import_from_checkout("mdistiller.distillers").distiller_dict[kind](
            *parts, *arguments
        )
        distiller = nn.DataParallel(distiller.cuda())
        trainers = import_from_checkout("mdistiller.engine").trainer_dict
        return trainers[self.cfg.SOLVER.TRAINER]("bench", distiller, train, test, self.cfg)


def _sizes(kind: str, student: nn.Module, teacher: nn.Module, batch: torch.Tensor) -> dict:
    """Return a pair's sizes for the configuration. The defaults are valid for one pair only."""
    with torch.no_grad():
        own, goal = student.eval()(batch)[1], teacher.eval()(batch)[1]
    student.train()
    if kind == "CRD":
        widths = [outputs["pooled_feat"].shape[1] for outputs in (own, goal)]
        return {"CRD.FEAT.STUDENT_DIM": widths[0], "CRD.FEAT.TEACHER_DIM": widths[1]}
    if kind != "REVIEWKD":
        return {}
    stages, goals = own["feats"][1:], goal["preact_feats"][1:]
    if len(stages) != len(goals):
        raise UnfitError(f"its ReviewKD cannot pair {len(stages)} stages with {len(goals)}")
    pooled = [outputs["pooled_feat"][:, :, None, None] for outputs in (own, goal)]
    stages, goals = [*stages, pooled[0]], [*goals, pooled[1]]
    return {
        "REVIEWKD.IN_CHANNELS": [maps.shape[1] for maps in stages],
        "REVIEWKD.OUT_CHANNELS": [maps.shape[1] for maps in goals],
        "REVIEWKD.SHAPES": [maps.shape[2] for maps in reversed(stages)],
        "REVIEWKD.OUT_SHAPES": [maps.shape[2] for maps in reversed(goals)],
    }
