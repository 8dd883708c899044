"""Whether a run's losses fit its networks, and what they cost, before anything is trained."""

from __future__ import annotations

import json
from functools import cache

import torch
from torch import Tensor, nn

from skd.common.errors import UnfitError
from skd.common.frozen import canonical
from skd.data.images import CHANNELS, DatasetFacts
from skd.losses.objective import Objective
from skd.losses.term import Batch, TermContext
from skd.models import Outputs, build_model, network_family
from skd.models.accounting import count_layers, count_parameters, memory_bytes
from skd.randomness import Draws, seeded
from skd.study.expansion import NetworkProfile, ObjectiveProfile
from skd.study.spec import MethodSpec, RunSpec


def fit_problem(spec: RunSpec, dataset: DatasetFacts) -> str | None:
    """Return why a run's method cannot work on its networks and data, or none."""
    tried = _tried(*_question(spec), dataset)
    return tried if isinstance(tried, str) else None


def extra_facts(spec: RunSpec, facts: DatasetFacts) -> ObjectiveProfile:
    """Return what a run's objective brings beside the networks.

    Raises:
        UnfitError: it cannot work on the run's networks and data.
    """
    tried = _tried(*_question(spec), facts)
    if isinstance(tried, str):
        raise UnfitError(tried)
    return tried


def network_facts(name: str, facts: DatasetFacts) -> NetworkProfile:
    """Return what a network is, for one image of a data set."""
    return _dry_pass(name, facts)[1]


def _question(spec: RunSpec) -> tuple[str, str | None, str]:
    """Return the part of a run that decides the fit: method, teacher's and student's network."""
    method = json.dumps(canonical(spec.method), sort_keys=True)
    return method, spec.teacher.network if spec.teacher else None, spec.network


@cache
def _tried(
    method: str, teacher: str | None, student: str, facts: DatasetFacts
) -> ObjectiveProfile | str:
    """Return the facts of an objective, or why it cannot be."""
    spec = MethodSpec.restore(json.loads(method))
    try:
        objective = _build(spec, _context(teacher, student, facts))
    except UnfitError as error:
        return str(error)
    work = 0
    for term, part in zip(spec.terms, objective.terms.values(), strict=True):
        convolves = any(isinstance(module, nn.Conv2d) for module in part.modules())
        alone = MethodSpec(terms=(term.model_copy(update={"settings": _raw(term.settings)}),))
        text = json.dumps(canonical(alone), sort_keys=True)
        convolved = _convolved(text, teacher, student, facts) if convolves else None
        known = part.multiply_adds() or convolved
        work += _multiply_adds(part) if known is None else known
    if objective.simplifier is not None:
        work += _multiply_adds(objective.simplifier)
    return ObjectiveProfile(
        parameters=count_parameters(objective),
        bytes=memory_bytes(objective),
        multiply_adds=work,
    )


def _raw(settings: dict) -> dict:
    """Return a term's settings with the raw teacher, whose logits have the same shape."""
    return {**settings, "teacher": "raw"}


def _multiply_adds(module: nn.Module) -> int:
    """Return the multiply-adds of one image, no forward pass tried.

    A weight of a linear layer or of a convolution counts once, and so does each number of a
    buffer, as where a batch is scored against a memory bank.
    """
    layers = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    return sum(tensor.numel() for tensor in [*(layer.weight for layer in layers), *buffers])


@cache
def _convolved(method: str, teacher: str | None, student: str, facts: DatasetFacts) -> int | None:
    """Return the multiply-adds of one image in a term whose convolutions' sizes only a pass shows.

    None where the pass fails: such a term fails with its reason in a run or in its own test.
    """
    context = _context(teacher, student, facts)
    device = torch.device("cpu")
    objective = _build(MethodSpec.restore(json.loads(method)), context)
    try:
        # Made without its initial weights, which take longer than the pass.
        objective = objective.to_empty(device=device).eval()
        with torch.no_grad(), count_layers(objective) as work:
            for tensor in [*objective.parameters(), *objective.buffers()]:
                tensor.zero_()
            first = torch.zeros(1, dtype=torch.int64)
            draws = Draws(0, device).set_step(1, 0)
            objective.begin_epoch(1)
            objective(Batch(context.student, context.teacher, first, first, 1, draws))
    except Exception:
        return None
    return work.multiply_adds


def _build(method: MethodSpec, context: TermContext) -> Objective:
    try:
        with torch.device("meta"):  # takes neither memory nor time
            return Objective(method, context)
    except (NotImplementedError, RuntimeError):  # not everything works there
        return Objective(method, context)


def _context(teacher: str | None, student: str, facts: DatasetFacts) -> TermContext:
    return TermContext(
        num_classes=facts.num_classes,
        train_labels=_labels(facts),
        seed=0,
        student=_dry_pass(student, facts)[0],
        teacher=_dry_pass(teacher, facts)[0] if teacher else None,
    )


@cache
def _labels(facts: DatasetFacts) -> Tensor:
    return torch.arange(facts.train_images) % facts.num_classes


@cache
def _dry_pass(network: str, facts: DatasetFacts) -> tuple[Outputs, NetworkProfile]:
    # Not on "meta": its first normal_() or batch norm imports torch's compiler, for seconds.
    with torch.no_grad(), seeded(0, "shapes"):
        model = build_model(network, facts.num_classes).eval()
        with count_layers(model) as work:
            outputs = model.forward_features(torch.zeros(1, CHANNELS, facts.size, facts.size))
    return outputs, NetworkProfile(
        parameters=count_parameters(model),
        multiply_adds=work.multiply_adds,
        activations=work.activations,
        layers=work.layers,
        family=network_family(network),
        pooled=outputs.pooled.shape[1],
    )
