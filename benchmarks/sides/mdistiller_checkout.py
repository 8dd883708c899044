"""A checkout of mdistiller: its folder, configuration files, modules and packages."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import torch
import yaml
from torch import nn

from benchmarks.cases import SideOptions
from benchmarks.results import BenchError

CONFIGS = Path("configs") / "cifar100"
PACKAGES = "yacs tensorboardX tqdm protobuf"


def checkout_folder(options: SideOptions) -> Path:
    """Return the checkout's folder.

    Raises:
        BenchError: no folder was given, or it is not a checkout.
    """
    root = options.mdistiller
    if root is None:
        raise BenchError("mdistiller: give the folder of a checkout with --mdistiller")
    if not (root / "mdistiller" / "engine" / "trainer.py").is_file():
        raise BenchError(
            f"{root} is not a checkout of mdistiller: it has no mdistiller/engine/trainer.py"
        )
    return root.resolve()


def config_file(root: Path, kind: str, teacher: str | None, student: str) -> Path:
    """Return the configuration file of a type for a pair, or for another pair if there is none.

    Raises:
        BenchError: the checkout has no file of the type.
    """
    others = []
    for path in sorted((root / CONFIGS).rglob("*.yaml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        distiller, solver = data.get("DISTILLER", {}), data.get("SOLVER", {})
        if distiller.get("TYPE") != kind or "dot" in str(solver.get("TRAINER", "")).lower():
            continue
        others.append(path)
        if distiller.get("STUDENT") == student and teacher in (None, distiller.get("TEACHER")):
            return path
    if not others:
        raise BenchError(f"{root / CONFIGS} has no file of type {kind}")
    return others[0]


def make_importable(root: Path, site: Path | None) -> None:
    """Make mdistiller importable: its own packages first, its requirements last."""
    sys.path.insert(0, str(root))
    if site is not None:
        sys.path.append(str(site.resolve()))


def import_from_checkout(name: str) -> ModuleType:
    """Import one of mdistiller's modules.

    Raises:
        BenchError: a package that it needs is missing.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BenchError(
            f"mdistiller needs the package {error.name}, which is not installed; run "
            f"pip install --no-deps --target FOLDER {PACKAGES} and add --mdistiller-site FOLDER"
        ) from error


def disable_cuda_calls() -> None:
    """Make ``.cuda()``, which mdistiller calls on everything, do nothing (without a GPU)."""
    torch.Tensor.cuda = lambda self, *arguments, **options: self
    nn.Module.cuda = lambda self, *arguments, **options: self


def checkout_commit(root: Path) -> str | None:
    """Return the commit of the checkout, or ``None`` if it is not known."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    return done.stdout.strip() or None
