"""Checkpoints are read in the forms in which the field saves them."""

import argparse
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path, PosixPath
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from skd.models import build_model
from skd.training.network_loading import build_from_state_dict
from skd.training.state_dicts import read_state_dict


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("resnet8", 10)
        model(torch.randn(16, 3, 32, 32))  # BatchNorm statistics that are not the fresh ones
    return model


@pytest.fixture
def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def loaded(path: Path) -> dict[str, Tensor]:
    return build_from_state_dict("resnet8", 10, read_state_dict(path), str(path)).state_dict()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def below(prefix: str, weights: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict((f"{prefix}{name}", value) for name, value in weights.items())


class CfgNode(dict):
    """A configuration that is pickled as yacs' is: by name, item by item, with a state."""

    def __reduce__(self) -> tuple[Any, ...]:
        return CfgNode, (), {"__immutable__": True}, None, iter(self.items())


CfgNode.__module__ = "yacs.config"
OPTIMIZER = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9)
SCHEDULER = torch.optim.lr_scheduler.MultiStepLR(OPTIMIZER, [150, 180])
FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda w: w,
    "parallel": lambda w: below("module.", w),
    "compiled, parallel twice": lambda w: below("module.module._orig_mod.", w),
    "parameters": lambda w: {
        k: nn.Parameter(v) if v.is_floating_point() else v for k, v in w.items()
    },
    "model": lambda w: {"model": w, "best_acc": 72.5},
    "state_dict": lambda w: {"state_dict": below("module.", w), "epoch": 240, "arch": "resnet"},
    **{key: lambda w, key=key: {key: w, "epoch": 1} for key in ("net", "params", "weights")},
    **{key: lambda w, key=key: {key: OrderedDict(w)} for key in ("student", "teacher")},
    "model_state_dict": lambda w: {"model": {"depth": 8}, "model_state_dict": w},
    "nested": lambda w: {"model": {"state_dict": w}},
    "RepDistiller": lambda w: {
        "opt": argparse.Namespace(model="resnet56", lr_decay_epochs=[150, 180, 210]),
        "model": w,
        "best_acc": torch.tensor(72.5),
        "epoch": 240,
    },
    "mdistiller, a teacher's latest": lambda w: {
        "epoch": 240,
        "model": below("module.student.", w),
        "optimizer": OPTIMIZER.state_dict(),
        "best_acc": np.float64(72.5),
    },
    "torchdistill": lambda w: {
        "model": w,
        "optimizer": OPTIMIZER.state_dict(),
        "lr_scheduler": SCHEDULER.state_dict(),
        "best_value": np.float32(72.5),
        "config": {"models": {"student": {"name": "resnet8"}}},
        "args": argparse.Namespace(run_log=PosixPath("logs/x.log")),
    },
    "timm": lambda w: {
        "arch": "resnet8",
        "state_dict": w,
        "state_dict_ema": below("module.", w),
        "version": torch.__version__,
        "metric": np.int64(3),
    },
    "Lightning": lambda w: {
        "pytorch-lightning_version": "2.5.0",
        "state_dict": below("model.", w),
        "optimizer_states": [OPTIMIZER.state_dict()],
        "callbacks": {"ModelCheckpoint{'mode': 'min'}": {"best_model_score": torch.tensor(0.3)}},
        "hyper_parameters": defaultdict(list, lr=0.1),
    },
    "arrays": lambda w: {"model": w, "accuracies": np.arange(3.0)},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_is_read_in_each_form(
    tmp_path: Path, weights: dict[str, Tensor], form: str, legacy: bool
) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(FORMS[form](weights), path, _use_new_zipfile_serialization=not legacy)
    assert same(loaded(path), weights)


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "student_best"])
@pytest.mark.parametrize("prefix", ["", "module.", "net._orig_mod."])
def test_safetensors_are_read_whatever_their_name(
    tmp_path: Path, weights: dict[str, Tensor], name: str, prefix: str
) -> None:
    save_file(below(prefix, weights), tmp_path / name)
    assert same(loaded(tmp_path / name), weights)


def test_scalars_of_an_older_numpy_and_options_of_other_libraries_are_read(
    tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pth"
    module = ModuleType("yacs.config")
    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    cfg = CfgNode(LR=0.05, SOLVER=CfgNode(TRAINER="base"))
    torch.save({"model": weights, "best_acc": np.float64(72.5), "cfg": cfg}, path)
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                assert b"cnumpy._core.multiarray\n" in content
                content = content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            target.writestr(name, content)
    assert same(loaded(path), weights)
    assert same(loaded(old), weights)


def test_a_prefix_that_is_the_networks_own_stays(tmp_path: Path) -> None:
    own = build_model("MobileNetV1", 10).state_dict()
    for number, prefix in enumerate(("", "model.", "module.model.")):
        path = tmp_path / f"{number}.pth"
        torch.save(below(prefix, own), path)
        built = build_from_state_dict("MobileNetV1", 10, read_state_dict(path), "it")
        assert same(built.state_dict(), own)


def test_batch_counters_may_be_missing(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = tmp_path / "checkpoint.pth"
    without_counters = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    assert len(without_counters) < len(weights)
    torch.save(without_counters, path)
    built = loaded(path)
    assert built.keys() == weights.keys()
    assert same({k: built[k] for k in without_counters}, without_counters)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(
    tmp_path: Path, weights: dict[str, Tensor], dtype: torch.dtype
) -> None:
    path = tmp_path / "checkpoint.pth"
    other = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    torch.save(other, path)
    built = loaded(path)
    assert {v.dtype for v in built.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(built[k], other[k].to(built[k].dtype)) for k in built)
