"""A method at work: its terms, weighted and summed, and the simplifier some of them see through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from skd.losses.discovery import term_class
from skd.losses.simplifier import Simplifier, SimplifierSettings
from skd.losses.standardisation import standardise_logits
from skd.losses.term import Batch, Peers, TermContext
from skd.models.network import Outputs
from skd.randomness import seeded
from skd.study.spec import MethodSpec


@dataclass(frozen=True)
class Losses:
    """What a step's objective returns: the total to minimise, and what to log."""

    total: Tensor
    parts: dict[str, Tensor]
    diagnostics: dict[str, Tensor]


class Objective(nn.Module):
    """The weighted sum of a method's terms. Its own parameters train with the student's."""

    def __init__(self, method: MethodSpec, context: TermContext) -> None:
        super().__init__()
        self.terms = nn.ModuleDict()
        for spec in method.terms:
            term = term_class(spec.term)
            settings = term.Settings.restore(spec.settings)
            label = self._label(spec.term, settings.teacher)
            with seeded(context.seed, f"weights of {label}"):  # the same in every sum
                self.terms[label] = term(settings, context)
        self.simplifier = None
        if method.simplifier is not None:
            settings = SimplifierSettings.restore(method.simplifier.settings)
            with seeded(context.seed, "weights of the simplifier"):
                self.simplifier = Simplifier(settings, context.num_classes)
        self._epoch = 0
        self._weights: Tensor | None = None  # the terms' in that epoch, on the device

    def parameter_groups(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """Yield the objective's trainable parameters with their learning-rate multipliers."""
        if parameters := trainable_parameters(self.terms):
            yield parameters, 1.0
        if self.simplifier is not None and (parameters := trainable_parameters(self.simplifier)):
            yield parameters, self.simplifier.settings.learning_rate_multiplier

    def kept(self) -> dict[str, Tensor]:
        """Return what is worth a look after the training: the simplifier's state dict, or nothing.

        Not the terms' modules and banks: they are large, and nothing is asked of them afterwards.
        """
        return self.simplifier.state_dict() if self.simplifier is not None else {}

    def begin_epoch(self, epoch: int, device: torch.device | str = "cpu") -> None:
        """Set the terms to an epoch (1-based); their weights lie on the losses' device.

        The weights keep their place there, so that a recorded step reads them anew.
        """
        if epoch == self._epoch:
            return
        weights = [term.weight(epoch) for term in self.terms.values()]
        if self._weights is None:
            self._weights = torch.zeros(len(weights), dtype=torch.float64, device=device)
        self._weights.copy_(torch.tensor(weights, dtype=torch.float64))
        for term in self.terms.values():
            term.begin_epoch(epoch)
        self._epoch = epoch

    def graph_key(self, epoch: int) -> tuple[int, ...]:
        """Return the epochs that terms read themselves, of those that do.

        While the value is the same, a recorded step stays valid.
        """
        return tuple(epoch for term in self.terms.values() if term.reads_epoch)

    def partition_problem(self, part: int) -> str | None:
        """Return why a batch cannot be divided into parts of so many images, or none.

        It can where the mean of the parts' losses is the batch's loss.
        """
        reasons = [
            f"{label} compares the images of a batch with each other, so that parts of one do not "
            "add up to it"
            for label, term in self.terms.items()
            if term.mixes_images
        ]
        if self.simplifier is not None and (reason := self.simplifier.partition_problem(part)):
            reasons.append(reason)
        return "; ".join(reasons) or None

    def after_step(self, peers: Peers) -> None:
        """Let the terms do what is due once a step, after its last part, in every process."""
        for term in self.terms.values():
            term.after_step(peers)

    def forward(self, batch: Batch) -> Losses:
        """Return the losses of a step's batch, or of a part of it.

        ``batch.teacher`` carries the raw teacher's logits.

        Raises:
            RuntimeError: `begin_epoch` has not been called.
        """
        if self._weights is None:
            raise RuntimeError("call begin_epoch first: the terms' weights depend on the epoch")
        seen, own_loss, diagnostics = self._simplify(batch)
        parts: dict[str, Tensor] = {}
        for label, term in self.terms.items():
            own = seen if term.settings.teacher == "simplified" else batch
            if term.settings.standardise:
                own = _with_standardised_logits(own)
            parts[label] = term(own)
        values = torch.stack([*parts.values()])
        weighted = self._weights.to(values.dtype) * values
        if own_loss is not None:
            parts["simplifier"] = own_loss
            weighted = torch.cat([weighted, own_loss[None]])
        return Losses(weighted.sum(), parts, diagnostics)

    def _label(self, term: str, teacher: str) -> str:
        """Return how a term is named in logs; a second one of the same name is numbered."""
        label = f"{term} on simplified" if teacher == "simplified" else term
        count = sum(existing.split(" #")[0] == label for existing in self.terms)
        return f"{label} #{count + 1}" if count else label

    def _simplify(self, batch: Batch) -> tuple[Batch, Tensor | None, dict[str, Tensor]]:
        """Return the batch with simplified teacher logits, the simplifier's loss, diagnostics."""
        if self.simplifier is None:
            return batch, None, {}
        raw, student = batch.teacher.logits, batch.student.logits
        simplified = self.simplifier(raw)
        teacher = replace(batch.teacher, logits=self.simplifier.for_student(simplified))
        return (
            replace(batch, teacher=teacher),
            self.simplifier.own_loss(raw, simplified, student),
            self.simplifier.diagnostics(raw, simplified, student, batch.target),
        )


def _with_standardised_logits(batch: Batch) -> Batch:
    def changed(outputs: Outputs) -> Outputs:
        return replace(outputs, logits=standardise_logits(outputs.logits))

    return replace(batch, student=changed(batch.student), teacher=changed(batch.teacher))


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return a module's parameters that train."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
