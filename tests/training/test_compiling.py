"""Compiled passes compute the same numbers, and a run decides on compiling once."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from skd.common.errors import InterruptedRunError, RunFailedError
from skd.models import Outputs, build_model
from skd.store.store import Store
from skd.training import compiling, fast_paths
from skd.training.batch_norm import use_counted_batch_norms
from skd.training.compiling import (
    CompilerError,
    compile_network,
    flatten_outputs,
    outputs_with_gradient,
)
from skd.training.execution import (
    Execution,
    ExecutionError,
    choose_execution,
    load_execution,
    save_execution,
)
from skd.training.fast_paths import FastPaths, decide_fast_paths, without_compiler
from skd.training.resources import Resources
from skd.training.runs import complete_run
from skd.training.step import TrainingStep
from skd.training.teacher import LiveTeacher
from tests.builders import tiny
from tests.builders.emulated_cuda_graph import emulate_recording
from tests.builders.paths import ROOT
from tests.builders.steps import assert_same_bits, train, trained_teacher, training_of

COMPILED = choose_execution("cpu", 1).model_copy(update={"compiled": True})
ALWAYS = FastPaths(compile="always")
FRESH = """
import sys
from pathlib import Path
from skd.training.fast_paths import FastPaths
from tests.builders import tiny

study = tiny.study(recipe={"epochs": 2, "milestones": []})
record = tiny.run(study, Path(sys.argv[1]), "kd", fast_paths=FastPaths(compile="always"))
print(tiny.numbers(record))
"""
# One network of each architecture.
FAMILIES = ("resnet8", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2", "ResNet50")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LiveTeacher:
    return trained_teacher(tmp_path_factory.mktemp("store"))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Compile by tracing only, which takes a second; yield a list that grows with each graph."""
    graphs: list[int] = []
    from torch._dynamo.backends.debugging import aot_eager

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(len(graph.graph.nodes))
        return aot_eager(graph, inputs)

    torch._dynamo.reset()
    compiled = torch.compile(compiling._flat_pass, fullgraph=True, dynamic=False, backend=backend)
    monkeypatch.setattr(compiling, "_compiler", lambda: compiled)
    yield graphs
    torch._dynamo.reset()


def images_of(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(count, 3, 32, 32, generator=generator)
    return drawn.contiguous(memory_format=torch.channels_last)


def loss_of(outputs: Outputs) -> torch.Tensor:
    return outputs.logits.square().mean() + outputs.stages[2].square().mean()


def test_outputs_with_a_gradient_are_those_that_the_loss_reads() -> None:
    outputs = build_model("resnet8", 5).forward_features(images_of(2))
    flat = flatten_outputs(outputs)
    reached = outputs_with_gradient(loss_of, outputs)
    assert [bool(a) for a in reached] == [
        place in (0, 2 + 2) for place in range(len(flat))
    ]  # logits, pooled, then the stages
    assert not any(outputs_with_gradient(lambda seen: seen.pooled.detach().sum(), outputs))


@pytest.mark.parametrize("name", FAMILIES)
def test_compiled_passes_are_the_networks(name: str, traced: list[int]) -> None:

    torch.manual_seed(0)
    plain = build_model(name, 5).to(memory_format=torch.channels_last)
    use_counted_batch_norms(plain)
    other = copy.deepcopy(plain)
    images = images_of()
    reached = outputs_with_gradient(loss_of, copy.deepcopy(plain).forward_features(images))
    outputs = compile_network(other, reached)(images)
    expected = plain.forward_features(images)
    loss_of(outputs).backward()
    loss_of(expected).backward()
    assert len(traced) == 1
    compared = zip(flatten_outputs(outputs), flatten_outputs(expected), reached, strict=True)
    for tensor, reference, reaches in compared:
        torch.testing.assert_close(tensor, reference)
        assert tensor.requires_grad == reaches
    for one, reference in zip(other.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, reference.grad)
    for one, reference in zip(other.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, reference)


def test_networks_of_one_kind_share_what_is_compiled(traced: list[int]) -> None:
    images = images_of()
    for seed in range(3):
        torch.manual_seed(seed)
        network = build_model("resnet8", 5)
        reached = (True,) * len(flatten_outputs(network.forward_features(images)))
        compile_network(network, reached)(images)
    assert len(traced) == 1
    for classes in range(6, 15):  # each is another variant: more than torch keeps by default
        network = build_model("resnet8", classes)
        assert compile_network(network)(images).logits.shape == (4, classes)
    assert len(traced) == 10


@pytest.mark.parametrize("method", ["student", "kd", "skd+crd", "reviewkd", "dkd"])
def test_compiled_trainings_are_near_eager_ones_and_resume_to_their_bits(
    method: str, teacher: LiveTeacher, traced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = train(training_of(method, teacher))
    whole = train(training_of(method, teacher, COMPILED))
    assert eager.keys() == whole.keys()
    for name in ("student.fc.weight", "student.bn1.running_mean", "sums.loss/total"):
        torch.testing.assert_close(whole[name], eager[name], rtol=1e-3, atol=1e-4)
    assert whole["student.bn1.num_batches_tracked"] == eager["student.bn1.num_batches_tracked"]
    half = training_of(method, teacher, COMPILED)
    emulate_recording(half, monkeypatch)
    train(half, 3)
    resumed = training_of(method, teacher, COMPILED)
    resumed.load_state(half.state())
    emulate_recording(resumed, monkeypatch)
    assert_same_bits(whole, train(resumed))
    assert len(traced) == 1  # only whole batches


def test_a_live_teachers_pass_is_compiled_for_whole_batches(traced: list[int]) -> None:
    network = build_model("resnet8", 5).eval().requires_grad_(False)
    live = LiveTeacher(network, compiled_for=4)
    nothing = torch.zeros(4, dtype=torch.int64)
    outputs = live.outputs(images_of(), nothing, nothing)
    assert len(traced) == 1
    torch.testing.assert_close(outputs.logits, network(images_of()))
    live.outputs(images_of(3), nothing[:3], nothing[:3])
    assert len(traced) == 1


GPU = "NVIDIA H200"


def decided(
    monkeypatch: pytest.MonkeyPatch, steps: int = 60_000, compilable: bool = True, **changes: Any
) -> Execution:
    monkeypatch.setattr(fast_paths, "gpu_model", lambda: GPU)
    wanted = {key: changes.pop(key) for key in ("compile", "compile_steps", "kernels")
              if key in changes}  # fmt: skip
    execution = Execution(**{"device": "cuda", "threads": 1, **changes})
    return decide_fast_paths(execution, FastPaths(**wanted), steps, compilable)


def test_long_runs_on_a_gpu_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decided(monkeypatch)
    assert (decision.compiled, decision.kernels, decision.gpu) == (True, None, GPU)
    assert not decided(monkeypatch, steps=49_999).compiled
    assert decided(monkeypatch, steps=10, compile_steps=10).compiled
    assert decided(monkeypatch, steps=10, compile="always").compiled
    assert not decided(monkeypatch, compile="never").compiled
    assert decided(monkeypatch, compile="never").gpu is None
    assert decided(monkeypatch, step="eager").compiled


@pytest.mark.parametrize(
    "changes", [{"device": "cpu"}, {"step": "plain"}, {"compilable": False}], ids=str
)
def test_other_runs_are_trained_again_only_on_request(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    decision = decided(monkeypatch, **changes)
    assert (decision.compiled, decision.kernels, decision.gpu) == (False, None, None)
    if changes == {"device": "cpu"}:
        assert decided(monkeypatch, compile="always", **changes).compiled
        return
    why = "plain steps are neither" if "step" in changes else "undivided batches"
    with pytest.raises(ExecutionError, match=why):
        decided(monkeypatch, compile="always", **changes)


def test_kernels_need_a_table_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Table:
        name = "nvidia-h200-0123abcd"

    with pytest.raises(ExecutionError, match=f"no table of kernels was measured for {GPU}.*tune"):
        decided(monkeypatch, kernels="always")
    monkeypatch.setattr(fast_paths, "find_table", lambda name: Table if name == GPU else None)
    assert decided(monkeypatch).kernels == Table.name
    assert decided(monkeypatch, kernels="never").kernels is None
    alone = decided(monkeypatch, compile="never", kernels="always")
    assert (alone.compiled, alone.kernels, alone.gpu) == (False, Table.name, GPU)
    assert decided(monkeypatch, compile="never").kernels is None
    with pytest.raises(ExecutionError, match="the kernels run on a GPU only"):
        decided(monkeypatch, kernels="always", device="cpu")


def test_what_was_decided_stays_and_is_bound_to_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_execution(tmp_path) is None
    save_execution(tmp_path, decided(monkeypatch))
    with pytest.raises(
        ExecutionError, match=f"kernels for {GPU}, and this machine has no GPU; resume"
    ):
        load_execution(tmp_path)
    monkeypatch.setattr("skd.training.execution.gpu_model", lambda: GPU)
    assert load_execution(tmp_path).compiled


def test_an_older_run_continues_uncompiled(tmp_path: Path) -> None:
    (tmp_path / "execution.json").write_text('{"device": "cpu", "threads": 1, "step": "fast"}')
    execution = load_execution(tmp_path)
    assert (execution.compiled, execution.kernels, execution.gpu, execution.not_compiled) == (
        False,
        None,
        None,
        None,
    )


def fail(*_: object) -> None:
    raise CompilerError("InductorError: no C++ compiler")


def test_a_run_continues_without_a_compiler_that_fails_at_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    eager = tiny.run(tiny.study(), tmp_path / "eager", "kd")
    monkeypatch.setattr(TrainingStep, "generate_code", fail)
    record = tiny.run(tiny.study(), tmp_path / "compiled", "kd", fast_paths=ALWAYS)
    assert tiny.numbers(record) == tiny.numbers(eager)
    assert record.execution["compiled"] is False
    assert record.execution["not_compiled"] == "InductorError: no C++ compiler"
    assert (
        "compiling failed, so forward passes run eagerly: InductorError: no C++ compiler"
        in capfd.readouterr().err
    )
    execution = json.loads((Store(tmp_path / "compiled").run(record.id).folder / "execution.json")
                      .read_text())  # fmt: skip
    assert execution["not_compiled"] == "InductorError: no C++ compiler"


def test_a_compiler_that_has_failed_is_not_tried_again_for_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[TrainingStep] = []

    def failing(step: TrainingStep, *_: object) -> None:
        tried.append(step)
        fail()

    monkeypatch.setattr(TrainingStep, "generate_code", failing)
    study, store, materials = tiny.study(), Store(tmp_path), Resources()
    cell = study.cell("resnet8", "student")
    for seed in study.seeds:
        options = tiny.options(fast_paths=ALWAYS)
        entry = store.run(cell.runs[seed])
        record = complete_run(cell.run(seed), entry, options, "a run", resources=materials)
        assert record.execution["not_compiled"] == "InductorError: no C++ compiler"
    assert len(tried) == 1


def test_a_compiler_that_fails_later_is_an_error_that_leaves_the_run_as_it_was(
    tmp_path: Path, traced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny.run(tiny.study(), tmp_path / "whole", "kd", fast_paths=ALWAYS)
    stops = iter([False, True])
    with pytest.raises(InterruptedRunError):
        tiny.run(
            tiny.study(),
            tmp_path / "half",
            "kd",
            fast_paths=ALWAYS,
            should_stop=lambda: next(stops),
        )
    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "generate_code", fail)
        with pytest.raises(ExecutionError, match=r"started with compiled passes.*remove .* again"):
            tiny.run(tiny.study(), tmp_path / "half", "kd")
    assert Store(tmp_path / "half").run(whole.id).failure() is None
    # It continues compiled, whatever is requested now.
    never = FastPaths(compile="never")
    resumed = tiny.run(tiny.study(), tmp_path / "half", "kd", fast_paths=never)
    assert resumed.execution["compiled"] is True
    assert tiny.numbers(resumed) == tiny.numbers(whole)


def test_a_removed_table_leaves_the_run_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = iter([False, True])
    with pytest.raises(InterruptedRunError):
        tiny.run(tiny.study(), tmp_path, "kd", should_stop=lambda: next(stops))
    entry = Store(tmp_path).run(tiny.study().cell(tiny.PAIR, "kd").runs[0])
    changes = {"kernels": "a-gpu-01234567", "teacher": "live"}
    save_execution(entry.folder, choose_execution("cpu", 1).model_copy(update=changes))
    with pytest.raises(ExecutionError, match="no table of kernels 'a-gpu-01234567'"):
        tiny.run(tiny.study(), tmp_path, "kd")
    assert entry.failure() is None


def test_without_a_compiler_there_are_no_kernels_either(monkeypatch: pytest.MonkeyPatch) -> None:
    both = decided(monkeypatch).model_copy(update={"kernels": "nvidia-h200-0123abcd"})
    execution = without_compiler(both, "no C compiler")
    assert (execution.compiled, execution.kernels, execution.gpu) == (False, None, None)
    assert execution.not_compiled == "no C compiler"


def test_a_run_that_lacks_only_its_record_compiles_nothing(
    tmp_path: Path, traced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("skd.training.run_folder.write_result", lambda *_: 1 / 0)
        with pytest.raises(RunFailedError):
            tiny.run(tiny.study(), tmp_path, "kd", fast_paths=ALWAYS)
    monkeypatch.setattr(TrainingStep, "generate_code", fail)
    record = tiny.run(tiny.study(), tmp_path, "kd")
    assert len(record.epochs) == 3


def test_a_network_that_cannot_be_compiled_says_why(
    teacher: LiveTeacher, traced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_of("kd", teacher, COMPILED)
    before = copy.deepcopy(training.student.state_dict())
    relu = nn.functional.relu

    def talkative(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return relu(x)

    monkeypatch.setattr("skd.models.resnet.F.relu", talkative)
    with pytest.raises(CompilerError, match="Unsupported"):
        training.prepare()
    for name, tensor in training.student.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None
    or not Path(sysconfig.get_path("include"), "Python.h").is_file(),
    reason="no C++ compiler or no headers of Python here",
)
def test_the_real_compilers_run_repeats_in_a_fresh_process_and_resumes_bit_for_bit(
    tmp_path: Path,
) -> None:
    study = tiny.study(recipe={"epochs": 2, "milestones": []})
    place = {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),  # empty: everything is compiled again
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    command = [sys.executable, "-c", FRESH, str(tmp_path / "fresh")]
    fresh = subprocess.Popen(
        command, env={**os.environ, **place}, stdout=subprocess.PIPE, text=True
    )
    whole = tiny.run(study, tmp_path / "whole", "kd", fast_paths=ALWAYS)
    assert whole.execution["compiled"] is True
    eager = tiny.run(study, tmp_path / "eager", "kd")
    assert whole.epochs[0].train_losses == pytest.approx(eager.epochs[0].train_losses, rel=0.02)
    stops = iter([False, False, True])
    with pytest.raises(InterruptedRunError):
        tiny.run(study, tmp_path / "half", "kd", fast_paths=ALWAYS, should_stop=lambda: next(stops))
    assert tiny.numbers(tiny.run(study, tmp_path / "half", "kd")) == tiny.numbers(whole)
    out, _ = fresh.communicate()
    assert out.splitlines()[-1] == str(tiny.numbers(whole))
