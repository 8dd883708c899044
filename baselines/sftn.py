"""SFTN: a teacher that is trained to suit its student (Park et al., NeurIPS 2021, 2102.07650)."""

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from baselines._branches import Branch, branch_stages
from baselines._losses import mean_label_loss
from baselines.kd import kd_loss
from skd.terms import Batch, Term, TermContext, TermSettings, UnfitError


class SFTN(Term):
    """The losses of the student's branches while their teacher is trained (stage 1 of the paper).

    The whole loss is λ_T·CE(t, y) + λ_KL·mean_i KL_τ(s_i ← t) + λ_CE·mean_i CE(s_i, y), where t are
    the logits of the network that is trained. This term is the second and third part; λ_T is the
    weight of cross-entropy. Branch i has the layers of the student after stage i, for each stage
    between the stem and the last one, and the branches share no weights. They are trained with the
    teacher's optimiser and dropped when the training ends.

    No code of the authors is public. What the text leaves open is ours: see docs/methods.md.
    """

    class Settings(TermSettings):
        """SFTN's settings."""

        divergence: NonNegativeFloat = Field(
            3.0, description="λ_KL, weight of the branches' divergence from the teacher"
        )
        branch_cross_entropy: NonNegativeFloat = Field(
            1.0, description="λ_CE, weight of the branches' cross-entropy with the labels"
        )
        temperature: PositiveFloat = Field(1.0, description="τ of both softmaxes")
        detach_maps: bool = Field(
            False, description="stops the gradient from the branches to the teacher's maps"
        )
        detach_logits: bool = Field(
            False, description="stops the gradient from the divergence to the teacher's logits"
        )

    uses_partner = True
    reads_second_target = True

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        if context.partner is None:
            raise UnfitError("sftn trains a teacher to suit a student: it needs a partner")
        maps = context.student.stages
        stages = branch_stages(context.student, context.partner)
        self.branches = nn.ModuleList(
            Branch(context.partner, stage, maps[stage]) for stage in stages
        )
        self._hits: list[Tensor] = []  # of each branch on the last batch, (B,)

    def forward(self, batch: Batch) -> Tensor:
        """Return the weighted sum of the branches' mean divergence and mean cross-entropy."""
        settings, teacher, target = self.settings, batch.student, batch.main_target
        logits = teacher.logits.detach() if settings.detach_logits else teacher.logits
        divergences, entropies, self._hits = [], [], []
        for branch in self.branches:
            maps = teacher.stages[branch.stage]
            student = branch(maps.detach() if settings.detach_maps else maps).logits
            divergences.append(kd_loss(student, logits, settings.temperature))
            entropies.append(mean_label_loss(student, batch))
            self._hits.append(student.detach().argmax(dim=1) == target)
        return (
            settings.divergence * torch.stack(divergences).mean()
            + settings.branch_cross_entropy * torch.stack(entropies).mean()
        )

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """Return each branch's training accuracy in percent."""
        return {
            f"branch {branch.stage} top-1": 100 * hits.float().mean()
            for branch, hits in zip(self.branches, self._hits, strict=True)
        }
