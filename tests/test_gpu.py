"""What only a GPU can show: `pytest -m gpu`."""

from pathlib import Path

import pytest
import tiny
import torch

from skd.data import load as load_images
from skd.data.views import ViewMaker, epoch_order
from skd.errors import InterruptedRunError
from skd.terms import term_classes
from skd.training.execution import choose

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
MOVING = {"settings": {"simplifier": {"learning_rate_multiplier": 1.0}}}
# CRD draws without replacement only where there are more images than it draws.
FEW_NEGATIVES = {"name": "few-negatives", "like": "crd", "settings": {"crd": {"negatives": 20}}}
TERMS = sorted(set(term_classes()) - {"cross_entropy"})
METHODS = ["student", "skd", *TERMS, *(f"skd+{name}" for name in ("kd", "dkd", "crd", "reviewkd"))]


def test_views_are_the_same_on_cpu_and_gpu() -> None:
    images = load_images(tiny.study().dataset)
    order = epoch_order(3, 2, len(images.train_labels))[:64]
    batches = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        maker = ViewMaker(images, device)
        batches.append(maker.batch(maker.draw(3, 2), order.to(device)).cpu())
    torch.testing.assert_close(*batches, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["few-negatives", *METHODS])
def test_a_run_on_a_gpu_repeats_and_resumes_bit_for_bit(tmp_path: Path, method: str) -> None:
    gpu = {"execution": choose("cuda", 1)}
    expansion = tiny.study(methods=[FEW_NEGATIVES, *METHODS], **MOVING)
    # The teacher is trained on the CPU, as `tiny.run` does.
    whole = tiny.run(expansion, tmp_path / "whole", method, **gpu)
    again = tiny.run(expansion, tmp_path / "again", method, **gpu)
    stops = iter([False, False, True])
    with pytest.raises(InterruptedRunError):
        tiny.run(expansion, tmp_path / "resumed", method, stopping=lambda: next(stops), **gpu)
    resumed = tiny.run(expansion, tmp_path / "resumed", method)
    assert resumed.execution["device"] == "cuda"
    assert tiny.numbers(whole) == tiny.numbers(again) == tiny.numbers(resumed)


def test_a_run_begun_on_a_gpu_is_near_the_same_run_on_a_cpu(tmp_path: Path) -> None:
    expansion = tiny.study(recipe={"epochs": 1, "milestones": [1]})
    cpu = tiny.run(expansion, tmp_path / "cpu", "kd")
    gpu = tiny.run(expansion, tmp_path / "gpu", "kd", execution=choose("cuda", 1))
    assert gpu.epochs[0].train_losses == pytest.approx(cpu.epochs[0].train_losses, rel=0.02)
