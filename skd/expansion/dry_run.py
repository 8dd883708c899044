"""Dry runs: whether a run's losses fit its networks, and what both cost, without training."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from skd.common.errors import UnfitError
from skd.common.frozen import canonical
from skd.data.images import CHANNELS, DatasetFacts
from skd.losses.methods import needs_strong_view, teacher_needs
from skd.losses.objective import Objective, trainable_parameters
from skd.losses.teacher_modules import TeacherModules
from skd.losses.term import (
    MODULE_NEEDS,
    Batch,
    NetworkReference,
    Partner,
    StrongView,
    TermContext,
)
from skd.models import FeatureNetwork, Outputs, build_model, network_family
from skd.models.accounting import count_layers, count_parameters, memory_bytes
from skd.randomness import Draws, seeded
from skd.study.expansion import NetworkProfile, ObjectiveProfile
from skd.study.spec import MethodSpec, RunSpec


def fit_problem(spec: RunSpec, dataset: DatasetFacts) -> str | None:
    """Return why a run's method cannot work on its networks and data; ``None`` if it can."""
    result = _profile_or_problem(*_cache_key(spec), dataset)
    return result if isinstance(result, str) else None


def objective_profile(spec: RunSpec, facts: DatasetFacts) -> ObjectiveProfile:
    """Return the size and cost of a run's objective, the networks excluded.

    Raises:
        UnfitError: the objective cannot work on the run's networks and data.
    """
    result = _profile_or_problem(*_cache_key(spec), facts)
    if isinstance(result, str):
        raise UnfitError(result)
    return result


def network_profile(name: str, facts: DatasetFacts) -> NetworkProfile:
    """Return the size and cost of a network, for one image of a data set."""
    return _dry_pass(name, facts).profile


def _cache_key(spec: RunSpec) -> tuple[str, str | None, str, str | None]:
    """Return what decides the result: method, teacher's, student's and partner's networks."""
    method = json.dumps(canonical(spec.method), sort_keys=True)
    return method, spec.teacher.network if spec.teacher else None, spec.network, spec.partner


@cache
def _profile_or_problem(
    method: str, teacher: str | None, student: str, partner: str | None, facts: DatasetFacts
) -> ObjectiveProfile | str:
    """Return the profile of an objective, or why it cannot be built."""
    spec = MethodSpec.restore(json.loads(method))
    try:
        objective = _build(spec, _context(teacher, student, facts, partner))
    except UnfitError as error:
        return str(error)
    if problem := _idle_rate(objective):
        return problem
    multiply_adds, networks = 0, (teacher, student, facts, partner)
    for term, part in zip(spec.terms, objective.terms.values(), strict=True):
        has_convolution = any(isinstance(module, nn.Conv2d) for module in part.modules())
        term_alone = MethodSpec(terms=(term,)).with_raw_logits()  # of the same shape
        text = json.dumps(canonical(term_alone), sort_keys=True)
        measured = _measure_term(text, *networks) if has_convolution else None
        known = part.multiply_adds() or measured
        multiply_adds += _multiply_adds(part) if known is None else known
    multiply_adds += sum(map(_multiply_adds, objective.transformations.values()))
    return ObjectiveProfile(
        parameters=count_parameters(objective),
        bytes=memory_bytes(objective),
        multiply_adds=multiply_adds,
        views=2 if needs_strong_view(spec) else 1,
    )


def _idle_rate(objective: Objective) -> str | None:
    """Return which term has a learning rate or a weight decay for parameters that it lacks."""
    for label, term in objective.terms.items():
        settings = term.settings
        is_set = settings.learning_rate_multiplier != 1 or settings.weight_decay is not None
        if is_set and not trainable_parameters(term):
            return (
                f"the term {label} has no parameters: leave out its learning_rate_multiplier and "
                "weight_decay"
            )
    return None


def _multiply_adds(module: nn.Module) -> int:
    """Return the multiply-adds of one image, without a forward pass.

    Each weight of a linear layer or convolution counts once. Each element of a floating-point
    buffer counts once too: losses score a batch against a memory bank.
    """
    layers = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    return sum(tensor.numel() for tensor in [*(layer.weight for layer in layers), *buffers])


@cache
def _measure_term(
    method: str, teacher: str | None, student: str, facts: DatasetFacts, partner: str | None
) -> int | None:
    """Return the multiply-adds of one image in a term, by a forward pass.

    Only a pass shows the output sizes of convolutions. Return ``None`` if the pass fails: such a
    term fails, with the reason, in a run or in its own test.
    """
    device, spec = torch.device("cpu"), MethodSpec.restore(json.loads(method))
    context = _context(teacher, student, facts, partner)
    if teacher_needs(spec) & MODULE_NEEDS:  # the term runs them
        modules = copy.deepcopy(_dry_pass(teacher, facts).network).to_empty(device=device)
        context = replace(context, teacher_modules=TeacherModules(modules))
    objective = _build(spec, context)
    try:
        # Weights are zero: initialising them takes longer than the pass.
        objective = objective.to_empty(device=device).eval()
        with torch.no_grad(), count_layers(objective) as work:
            for tensor in [*objective.parameters(), *objective.buffers()]:
                tensor.zero_()
            first = torch.zeros(1, dtype=torch.int64)
            draws = Draws(0, device).set_step(1, 0)
            objective.begin_epoch(1)
            outputs = context.student, context.teacher
            strong = StrongView(*outputs) if needs_strong_view(spec) else None
            objective(Batch(*outputs, first, first, 1, draws, strong=strong))
    except Exception:
        return None
    return work.multiply_adds


def _build(method: MethodSpec, context: TermContext) -> Objective:
    try:
        with torch.device("meta"):  # needs neither memory nor time
            return Objective(method, context)
    except (NotImplementedError, RuntimeError):  # some operations have no meta implementation
        return Objective(method, context)


def _context(
    teacher: str | None, student: str, facts: DatasetFacts, partner: str | None = None
) -> TermContext:
    teacher_pass = teacher and _dry_pass(teacher, facts)
    return TermContext(
        num_classes=facts.num_classes,
        train_labels=_labels(facts),
        seed=0,
        student=_dry_pass(student, facts).outputs,
        teacher=teacher_pass and teacher_pass.outputs,
        teacher_modules=teacher_pass and TeacherModules(teacher_pass.network),
        network=NetworkReference(_dry_pass(student, facts).network),
        partner=partner
        and Partner(
            partner,
            _dry_pass(partner, facts).outputs,
            lambda: build_model(partner, facts.num_classes),
        ),
    )


@cache
def _labels(facts: DatasetFacts) -> Tensor:
    return torch.arange(facts.train_images) % facts.num_classes


@dataclass(frozen=True)
class _DryPass:
    """A network on the meta device, its outputs on one image of zeros, and its size and cost."""

    network: FeatureNetwork
    outputs: Outputs
    profile: NetworkProfile


@cache
def _dry_pass(network: str, facts: DatasetFacts) -> _DryPass:
    # Not on "meta": its first normal_() or batch norm imports torch's compiler, which is slow.
    with torch.no_grad(), seeded(0, "shapes"):
        model = build_model(network, facts.num_classes).eval()
        with count_layers(model) as work:
            outputs = model.forward_features(torch.zeros(1, CHANNELS, facts.size, facts.size))
    profile = NetworkProfile(
        parameters=count_parameters(model),
        multiply_adds=work.multiply_adds,
        activations=work.activations,
        layers=work.layers,
        family=network_family(network),
        pooled=outputs.pooled.shape[1],
    )
    return _DryPass(model.requires_grad_(False).to("meta"), outputs, profile)
