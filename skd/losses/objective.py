"""The objective of a training: the weighted sum of a method's terms, and its transformations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from skd.losses.discovery import term_class, transformation_class
from skd.losses.standardisation import standardise_logits
from skd.losses.term import RAW, Batch, Peers, StrongView, Term, TermContext
from skd.losses.transformation import Transformation
from skd.models.network import Outputs
from skd.randomness import seeded
from skd.study.spec import MethodSpec


@dataclass(frozen=True)
class Losses:
    """The losses of a step.

    Attributes:
        total: to minimise.
        by_term: the loss of each part, without its weight.
        diagnostics: scalars to record.
        logits: the student's (B, C), or those of the term that replaces its classifier.
    """

    total: Tensor
    by_term: dict[str, Tensor]
    diagnostics: dict[str, Tensor]
    logits: Tensor


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained with the same learning rate and weight decay.

    Attributes:
        parameters: at least one.
        learning_rate_multiplier: factor on the student's learning rate.
        weight_decay: ``None`` for the recipe's.
    """

    parameters: list[nn.Parameter]
    learning_rate_multiplier: float = 1.0
    weight_decay: float | None = None


class Objective(nn.Module):
    """The weighted sum of a method's terms. Its parameters are trained with the student's.

    Its state dict has each term under ``terms``, and each transformation under its own name.
    """

    def __init__(self, method: MethodSpec, context: TermContext) -> None:
        super().__init__()
        self.terms = nn.ModuleDict()
        for spec in method.terms:
            term = term_class(spec.term)
            settings = term.Settings.restore(spec.settings)
            label = self._label(spec.term, settings.teacher)
            with seeded(context.seed, f"weights of {label}"):  # the same in every method
                self.terms[label] = term(settings, context.restrict(term.needs))
        self._names: dict[str, str] = {}  # of the transformations, by their logits' names
        for spec in method.transformations:
            rule = transformation_class(spec.name)
            settings = rule.Settings.restore(spec.settings)
            with seeded(context.seed, f"weights of the {spec.name}"):
                self.add_module(spec.name, rule(settings, context.restrict(rule.needs)))
            self._names[rule.logits_name or spec.name] = spec.name
        self._epoch = 0
        self._weights: Tensor | None = None  # the terms' weights in that epoch, on the device

    @property
    def transformations(self) -> dict[str, Transformation]:
        """The transformations of the teacher's logits, by name."""
        return {name: self.get_submodule(name) for name in self._names.values()}

    def parameter_groups(self) -> Iterator[ParameterGroup]:
        """Yield the objective's trainable parameters in groups, without empty ones.

        Terms with the student's learning rate and weight decay share the first group.
        """
        alike, others = nn.ModuleList(), []
        for term in self.terms.values():
            own = _parameter_group(term)
            if own == replace(own, learning_rate_multiplier=1.0, weight_decay=None):
                alike.append(term)
            else:
                others.append(own)
        groups = [
            ParameterGroup(trainable_parameters(alike)),
            *others,
            *map(_parameter_group, self.transformations.values()),
        ]
        yield from (group for group in groups if group.parameters)

    def tensors_to_store(self) -> dict[str, Tensor]:
        """Return the tensors to store after the training.

        They are the state dicts of the transformations and of a term that replaces the student's
        classifier. If there are several, the keys of each start with its name. The other terms'
        modules and memory banks are large and not used after the training.
        """
        parts = {**self.transformations, **self._classifying_terms()}
        if len(parts) == 1:
            return next(iter(parts.values())).state_dict()
        return {
            f"{name}.{key}": tensor
            for name, part in parts.items()
            for key, tensor in part.state_dict().items()
        }

    def classifier(self) -> Term | None:
        """Return the term that replaces the student's classifier, or ``None``."""
        return next(iter(self._classifying_terms().values()), None)

    def _classifying_terms(self) -> dict[str, Term]:
        return {label: term for label, term in self.terms.items() if term.replaces_classifier}

    def begin_epoch(self, epoch: int, device: torch.device | str = "cpu") -> None:
        """Set the terms to an epoch (1-based), and their weights on the losses' device.

        The weights are updated in place, so that a recorded step reads the new ones.
        """
        if epoch == self._epoch:
            return
        weights = [term.weight(epoch) for term in self.terms.values()]
        if self._weights is None:
            self._weights = torch.zeros(len(weights), dtype=torch.float64, device=device)
        self._weights.copy_(torch.tensor(weights, dtype=torch.float64))
        for part in (*self.terms.values(), *self.transformations.values()):
            part.begin_epoch(epoch)
        self._epoch = epoch

    def graph_key(self, epoch: int) -> tuple[int, ...]:
        """Return a key of the recorded step: a recording is valid while the key is the same.

        The key has the epoch once for each term that reads it.
        """
        return tuple(epoch for term in self.terms.values() if term.reads_epoch)

    def partition_problem(self, part_size: int) -> str | None:
        """Return why a batch cannot be divided into parts of some size; ``None`` if it can.

        It can if the mean of the parts' losses is the batch's loss.

        Args:
            part_size: images in each part.
        """
        reasons = [
            f"{label} compares the images of a batch with each other: its loss is not the mean of "
            "the parts' losses"
            for label, term in self.terms.items()
            if term.mixes_images
        ]
        for transformation in self.transformations.values():
            if reason := transformation.partition_problem(part_size):
                reasons.append(reason)
        return "; ".join(reasons) or None

    def after_step(self, peers: Peers) -> None:
        """Call each term's `after_step`, once per step after its last part, in every process."""
        for term in self.terms.values():
            term.after_step(peers)

    def forward(self, batch: Batch) -> Losses:
        """Return the losses of a step's batch, or of a part of it.

        ``batch.teacher`` has the teacher's raw logits, ``batch.student`` the student's own.

        Raises:
            RuntimeError: `begin_epoch` has not been called.
        """
        if self._weights is None:
            raise RuntimeError("call begin_epoch first: the terms' weights depend on the epoch")
        if (classifier := self.classifier()) is not None:
            batch = _classified(batch, classifier)
        own_losses: dict[str, Tensor] = {}
        diagnostics: dict[str, Tensor] = {}
        batches = {RAW: batch}
        for logits_name, name in self._names.items():
            batches[logits_name] = self._transform(name, batch, own_losses, diagnostics)
        losses: dict[str, Tensor] = {}
        for label, term in self.terms.items():
            term_batch = batches[term.settings.teacher]
            if term.settings.standardise:
                term_batch = _with_standardised_logits(term_batch)
            losses[label] = term(term_batch)
            with torch.no_grad():
                for key, value in term.diagnostics(term_batch).items():
                    diagnostics[f"{label}/{key}"] = value
        values = torch.stack([*losses.values()])
        weighted = self._weights.to(values.dtype) * values
        if own_losses:
            weighted = torch.cat([weighted, torch.stack([*own_losses.values()])])
        return Losses(weighted.sum(), losses | own_losses, diagnostics, batch.student.logits)

    def _transform(
        self,
        name: str,
        batch: Batch,
        own_losses: dict[str, Tensor],
        diagnostics: dict[str, Tensor],
    ) -> Batch:
        """Return the batch with transformed teacher logits; add to the losses and diagnostics."""
        part = self.get_submodule(name)
        logits = part(batch)
        if (own_loss := part.own_loss(batch, logits)) is not None:
            own_losses[name] = own_loss
        prefix = f"{name}/" if part.diagnostics_prefix is None else part.diagnostics_prefix
        with torch.no_grad():
            for key, value in part.diagnostics(batch, logits).items():
                diagnostics[f"{prefix}{key}"] = value
        strong = batch.strong
        if strong is not None:
            on_strong = part(replace(batch, student=strong.student, teacher=strong.teacher))
            strong = replace(
                strong, teacher=_with_logits(strong.teacher, part.for_student(on_strong))
            )
        teacher = _with_logits(batch.teacher, part.for_student(logits))
        return replace(batch, teacher=teacher, strong=strong)

    def _label(self, term: str, teacher: str) -> str:
        """Return a term's name in logs; a second term of the same name is numbered."""
        label = term if teacher == RAW else f"{term} on {teacher}"
        count = sum(existing.split(" #")[0] == label for existing in self.terms)
        return f"{label} #{count + 1}" if count else label


def _parameter_group(part: Term | Transformation) -> ParameterGroup:
    settings = part.settings
    return ParameterGroup(
        trainable_parameters(part), settings.learning_rate_multiplier, settings.weight_decay
    )


def _classified(batch: Batch, classifier: Term) -> Batch:
    """Return the batch with the logits of a term that replaces the student's classifier."""
    classification = classifier.classify(batch.student)
    student = replace(batch.student, logits=classification.logits)
    strong = batch.strong
    if strong is not None:
        logits = classifier.classify(strong.student).logits
        strong = replace(strong, student=replace(strong.student, logits=logits))
    return replace(batch, student=student, strong=strong, classification=classification)


def _with_standardised_logits(batch: Batch) -> Batch:
    def standardise(outputs: Outputs) -> Outputs:
        return _with_logits(outputs, standardise_logits(outputs.logits))

    strong = batch.strong
    if strong is not None:
        strong = StrongView(standardise(strong.student), standardise(strong.teacher))
    student, teacher = standardise(batch.student), standardise(batch.teacher)
    return replace(batch, student=student, teacher=teacher, strong=strong)


def _with_logits(outputs: Outputs, logits: Tensor) -> Outputs:
    return replace(outputs, logits=logits)


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters of a module."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
