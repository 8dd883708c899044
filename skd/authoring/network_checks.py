"""Checks of a network: its outputs and parts, that its training repeats, which methods fit.

`skd check-network` and the tests run them, on random images and a few training steps.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from skd.authoring.check_results import Check, CheckResult, require, run_checks
from skd.authoring.trial import (
    TRIAL_DATASET,
    TRIAL_STEPS,
    MethodTrial,
    run_trial,
    same_final_state,
    same_tensors,
    trial_spec,
)
from skd.data import dataset_facts
from skd.expansion.dry_run import fit_problem
from skd.losses.methods import method_names, needs_teacher, resolve_method
from skd.models import FeatureNetwork, Outputs, build_model
from skd.models.global_draws import REMEDY, drawing_layer
from skd.models.network import MissingPartError
from skd.models.step_dropout import draw_step_seeds, step_dropouts
from skd.randomness import seeded
from skd.study.sheet import SheetMethod
from skd.study.spec import MethodSpec

PARTNERS = (
    "resnet8", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2", "ResNet50",
)  # fmt: skip
CLASSES, BATCH = 7, 4
TOLERANCE = 1e-4  # relative to the largest value; another order of additions stays far below it


def check_network_contract(name: str) -> Iterator[CheckResult]:
    """Yield the results of all checks of a network that `build_model` knows."""
    yield from run_checks(NetworkChecks(name).checks())


def check_fitting_methods(name: str) -> Iterator[CheckResult]:
    """Yield, for each method, the partners with which it works, and why others are refused."""
    for method in method_names():
        spec = resolve_method(SheetMethod(name=method), {})
        if not needs_teacher(spec):
            yield CheckResult(method, note="needs no teacher")
            continue
        yield CheckResult(method, note="; ".join(_fits(spec, name)))


def _fits(method: MethodSpec, name: str) -> Iterator[str]:
    facts = dataset_facts(TRIAL_DATASET)
    for role in ("student of", "teacher of"):
        fitting, refused = [], {}
        for partner in PARTNERS:
            pair = (partner, name) if role == "student of" else (name, partner)
            reason = fit_problem(trial_spec(method, *pair), facts)
            if reason is None:
                fitting.append(partner)
            else:
                refused.setdefault(reason, []).append(partner)
        text = "all" if not refused else ", ".join(fitting) or "none"
        reasons = "".join(f" (not {', '.join(names)}: {why})" for why, names in refused.items())
        yield f"{role} {text}{reasons}"


class NetworkChecks:
    """The checks of one network. Each raises CheckFailedError, or returns a note.

    Args:
        name: a network that `build_model` knows.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.network = _settled(self._build())
        self.images = _noise(self.network, BATCH, torch.Generator().manual_seed(2))

    def checks(self) -> dict[str, Check]:
        """Return the checks by name, in the order in which a user repairs them."""
        return {
            "outputs": self.outputs_have_their_shapes,
            "stages in order": self.stages_are_in_order,
            "pre-activations": self.preactivations_match,
            "one pass": self.plain_pass_is_the_same,
            "images alone": self.images_are_independent,
            "gradients": self.gradients_reach_all,
            "no global draws": self.draws_nothing_globally,
            "repeats": self.repeats,
            "resumes": self.resumes,
            "forward_from": self.rest_is_equal,
            "final_layer": self.final_layer_gives_logits,
            "preactivation_norms": self.norms_match,
            "memory format": self.layout_changes_nothing,
        }

    def _build(self) -> FeatureNetwork:
        with seeded(0, "weights"):
            return build_model(self.name, CLASSES)

    @cached_property
    def whole(self) -> Outputs:
        """The outputs in evaluation."""
        with torch.no_grad():
            return self.network.eval().forward_features(self.images)

    def outputs_have_their_shapes(self) -> str:
        """Check types, shapes and finiteness; the note lists the stages."""
        out = self.whole
        require(isinstance(out, Outputs), "forward_features must return Outputs")
        _require_shape("logits", out.logits, (BATCH, CLASSES))
        require(out.pooled.dim() == 2, f"pooled must be (N, C), not {tuple(out.pooled.shape)}")
        require(len(out.stages) > 1, "stages must have the stem's map and one per stage")
        for kind in ("stages", "preactivations"):
            for index, maps in enumerate(getattr(out, kind)):
                where = f"{kind}[{index}]"
                shape = tuple(maps.shape)
                require(len(shape) == 4, f"{where} must be a map (N, C, H, W), not {shape}")
                require(shape[0] == BATCH, f"{where} must have one map an image")
        for tensor in (out.logits, out.pooled, *out.stages, *out.preactivations):
            require(bool(tensor.isfinite().all()), "the outputs are not finite")
        require(not same(out.logits[0], out.logits[1]), "all images have the same logits")
        return "stages " + ", ".join("x".join(map(str, maps.shape[1:])) for maps in out.stages)

    def stages_are_in_order(self) -> None:
        """Check that resolutions never rise and that each map depends on the map before it."""
        sides = [maps.shape[-1] for maps in self.whole.stages]
        require(
            sides == sorted(sides, reverse=True),
            f"the maps must not grow from stage to stage, but their sides are {sides}",
        )
        out = copy.deepcopy(self.network).eval().forward_features(self.images)
        for index, (maps, later) in enumerate(
            zip(out.stages, [*out.stages[1:], out.logits], strict=True)
        ):
            (gradient,) = torch.autograd.grad(
                later.square().sum(), maps, retain_graph=True, allow_unused=True
            )
            what = "the logits do" if later is out.logits else f"stages[{index + 1}] does"
            require(
                gradient is not None and bool(gradient.any()),
                f"{what} not depend on stages[{index}]: the maps must be those that the next "
                "layers read, in the order of the pass",
            )

    def preactivations_match(self) -> str:
        """Check numbers and shapes; the note says which maps are the ReLU of a pre-activation."""
        out = self.whole
        if not out.preactivations:
            return "none: methods that read them are refused"
        numbers = len(out.preactivations), len(out.stages)
        require(
            numbers[0] == numbers[1],
            f"there must be none, or one for each of the {numbers[1]} stages, not {numbers[0]}",
        )
        require(
            out.preactivations[0] is out.stages[0],
            "preactivations[0] must be the same tensor as stages[0]",
        )
        otherwise = []
        for index, (raw, maps) in enumerate(zip(out.preactivations, out.stages, strict=True)):
            require(
                raw.shape == maps.shape,
                f"preactivations[{index}] is {tuple(raw.shape)}, but stages[{index}] is "
                f"{tuple(maps.shape)}",
            )
            if index and not same(raw.relu(), maps):
                otherwise.append(f"stages[{index}]")
        if not otherwise:
            return "each stage is the ReLU of its pre-activation"
        return f"not the ReLU of its pre-activation: {', '.join(otherwise)}"

    def plain_pass_is_the_same(self) -> None:
        """Check that ``model(x)`` is the same single pass, in which a BatchNorm runs once."""
        with torch.no_grad():
            first, second = (self._seeded_copy() for _ in range(2))
            logits, out = first(self.images), second.forward_features(self.images)
        require(same(logits, out.logits), "model(x) and forward_features(x) give other logits")
        for key, value in second.state_dict().items():
            if key.endswith("num_batches_tracked"):
                before = self.network.state_dict()[key]
                runs = int(value - before)
                require(runs == 1, f"{key.rpartition('.')[0]} runs {runs} times in one pass, not 1")
        require(
            same_tensors(first.state_dict(), second.state_dict()),
            "model(x) and forward_features(x) change the buffers differently",
        )

    def images_are_independent(self) -> None:
        """Check that in evaluation an image's logits do not depend on the others."""
        with torch.no_grad():
            alone = torch.cat([self.network.eval()(image[None]) for image in self.images])
        require(close(alone, self.whole.logits), "an image's logits depend on the batch")

    def gradients_reach_all(self) -> None:
        """Check that every parameter gets a gradient from the logits."""
        network = self._seeded_copy()
        network.forward_features(self.images).logits.square().sum().backward()
        lost = [
            name for name, p in network.named_parameters() if p.requires_grad and p.grad is None
        ]
        require(not lost, f"no gradient reaches {', '.join(lost[:5])}: remove what is not used")

    def draws_nothing_globally(self) -> str:
        """Check that no layer draws from torch's global generator in a training pass."""
        layer = drawing_layer(self.network, self.images)
        require(layer is None, f"the layer {layer} draws from torch's global generator; {REMEDY}")
        count = len(step_dropouts(self.network))
        return f"{count} layers draw from the step's own stream" if count else ""

    @cached_property
    def _trial(self) -> MethodTrial:
        return self._train()

    def _train(self, *arguments: object, **options: object) -> MethodTrial:
        method = resolve_method(SheetMethod(name="student"), {})
        return run_trial(trial_spec(method, self.name, self.name), None, *arguments, **options)

    def repeats(self) -> None:
        """Check that two training steps end with the same bits when they are repeated."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(12345)
            first = self._trial
            second = self._train()
        require(
            same_tensors(first.first_weights, second.first_weights),
            "a second run starts with other weights: draw them from torch's generator only",
        )
        require(same_final_state(first, second), "a second run ends with other bits")

    def resumes(self) -> None:
        """Check that a run that is resumed after its first step ends with the same bits."""
        state = self._trial.state_after_first_step
        resumed = self._train(state, steps=TRIAL_STEPS - 1)
        require(
            same_final_state(self._trial, resumed),
            "resumed after the first step, it ends with other bits: is all its state in "
            "parameters and buffers?",
        )

    def rest_is_equal(self) -> str:
        """Check `forward_from` at every stage."""
        for index, maps in enumerate(self.whole.stages):
            try:
                with torch.no_grad():
                    rest = self.network.eval().forward_from(index, maps)
            except MissingPartError:
                return "not defined: methods that run a network's last stages are refused"
            require(
                same(rest.logits, self.whole.logits) and same(rest.pooled, self.whole.pooled),
                f"forward_from({index}, stages[{index}]) gives other outputs than the whole pass",
            )
        return ""

    def final_layer_gives_logits(self) -> str:
        """Check ``final_layer()(pooled)``."""
        try:
            layer = self.network.final_layer()
        except MissingPartError:
            return "not defined: methods that use a teacher's classifier are refused"
        with torch.no_grad():
            logits = layer(self.whole.pooled)
        require(close(logits, self.whole.logits), "final_layer()(pooled) does not give the logits")
        return ""

    def norms_match(self) -> str:
        """Check that there is a BatchNorm, or ``None``, for each pre-activation."""
        norms, raws = self.network.preactivation_norms(), self.whole.preactivations
        if not norms:
            return "none: methods that read a teacher's BatchNorms are refused" if raws else ""
        require(len(norms) == len(raws), f"{len(norms)} for {len(raws)} pre-activations")
        for index, (norm, raw) in enumerate(zip(norms, raws, strict=True)):
            if norm is None:
                continue
            require(isinstance(norm, nn.BatchNorm2d), f"entry {index} must be a BatchNorm2d")
            channels = norm.num_features, raw.shape[1]
            require(
                channels[0] == channels[1],
                f"entry {index} has {channels[0]} channels, but its pre-activation has "
                f"{channels[1]}",
            )
        return ""

    def layout_changes_nothing(self) -> str:
        """Check that channels-last order, in which GPUs train, changes no value."""
        network = copy.deepcopy(self.network).eval().to(memory_format=torch.channels_last)
        with torch.no_grad():
            out = network.forward_features(self.images.to(memory_format=torch.channels_last))
        require(close(out.logits, self.whole.logits), "channels-last order changes the logits")
        kept = [maps.is_contiguous(memory_format=torch.channels_last) for maps in out.stages]
        if all(kept):
            return ""
        return f"stages[{kept.index(False)}] is not in channels-last order: its layers cost copies"

    def _seeded_copy(self) -> FeatureNetwork:
        """Return a copy in training mode, seeded as in a step."""
        network = copy.deepcopy(self.network).train()
        draw_step_seeds(step_dropouts(network), torch.Generator().manual_seed(0))
        return network


@torch.no_grad()
def _settled(network: FeatureNetwork) -> FeatureNetwork:
    """Return the network after a few passes, which make its BatchNorms no identities."""
    draw_step_seeds(step_dropouts(network), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        for _ in range(3):
            network(_noise(network, 2 * BATCH, generator))
    return network


def _noise(network: FeatureNetwork, count: int, generator: torch.Generator) -> Tensor:
    """Return images of the smallest size at which all maps of the network have a use."""
    side = 64 if network.made_for == 224 else 32
    return torch.randn(count, 3, side, side, generator=generator)


def _require_shape(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    require(tuple(tensor.shape) == shape, f"{what} must be {shape}, not {tuple(tensor.shape)}")


def same(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors have the same bits."""
    return torch.equal(first, second)


def close(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors are equal up to the rounding of another order of additions."""
    if first.shape != second.shape:
        return False
    return (first - second).abs().max() <= TOLERANCE * second.abs().max()
