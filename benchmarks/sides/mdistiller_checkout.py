"""A checkout of mdistiller: found, made importable, its configuration files and packages."""

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
        BenchError: none was given, or it is none.
    """
    root = options.mdistiller
    if root is None:
        raise BenchError("mdistiller: give the folder of a checkout by --mdistiller")
    if not (root / "mdistiller" / "engine" / "trainer.py").is_file():
        raise BenchError(
            f"{root} is no checkout of mdistiller: it has no mdistiller/engine/trainer.py"
        )
    return root.resolve()


def config_file(root: Path, kind: str, teacher: str | None, student: str) -> Path:
    """Return its configuration file for a type and pair; else one of the type, for another pair.

    Raises:
        BenchError: the checkout has none of the type.
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
    """Make its packages importable: its own first, what it needs last, behind this project's."""
    sys.path.insert(0, str(root))
    if site is not None:
        sys.path.append(str(site.resolve()))


def import_from_checkout(name: str) -> ModuleType:
    """Import one of its modules.

    Raises:
        BenchError: a package that it needs is missing; says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BenchError(
            f"mdistiller needs the package {error.name}, which is not here: "
            f"pip install --no-deps --target FOLDER {PACKAGES}, then --mdistiller-site FOLDER"
        ) from error


def disable_cuda_calls() -> None:
    """Let ``.cuda()``, which its code calls on everything, mean nothing where there is no GPU."""
    torch.Tensor.cuda = lambda self, *arguments, **options: self
    nn.Module.cuda = lambda self, *arguments, **options: self


def checkout_commit(root: Path) -> str | None:
    """Return the commit of the checkout, or none where that is not known."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    return done.stdout.strip() or None
