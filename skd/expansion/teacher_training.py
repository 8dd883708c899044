"""The training of a sheet's teachers, resolved and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from skd.common.errors import suggest
from skd.common.wrapped_networks import network_label
from skd.data.images import DatasetFacts
from skd.expansion.dry_run import fit_problem, objective_profile
from skd.expansion.sheet_checks import check_network_at, check_seed
from skd.losses.methods import (
    classifier_terms,
    method_names,
    mixing_problem,
    resolve_method,
    teacher_methods,
    teacher_needs,
    uses_partner,
)
from skd.study.expansion import TeacherNode
from skd.study.ineffective_settings import (
    explicit_settings,
    ineffective_default,
    notes_on_long_settings,
)
from skd.study.sheet import SheetMethod, TrainSource
from skd.study.sheet_files import StudyError
from skd.study.sheet_recipes import WrittenRecipe
from skd.study.spec import DatasetSpec, MethodSpec, RunSpec, TrainedTeacher

PLAIN_METHOD = "student"  # the method of a teacher that a sheet trains without saying how


@dataclass(frozen=True)
class TeacherTraining:
    """How a sheet trains a teacher.

    Attributes:
        network: the teacher's network.
        source: its seed, method, partner and settings.
        recipe: its recipe, with all changes.
        where: the place in the sheet, for messages.
        advice: what to write if the teacher cannot be trained, for messages; may be empty.
    """

    network: str
    source: TrainSource
    recipe: WrittenRecipe
    where: str
    advice: str = ""

    def node(self, name: str, dataset: DatasetSpec, facts: DatasetFacts) -> TeacherNode:
        """Return the teacher as a node of the study.

        Args:
            name: the teacher's name in the study.
            dataset: the study's images.
            facts: their number and size.

        Raises:
            StudyError: a seed, method, partner, setting or recipe is not allowed, or the method
                does not fit the networks; names the place.
        """
        check_network_at(f"{self.where}: network", self.network, facts, is_trained=True)
        check_seed(self.where, self.source.seed)
        method = self.method()
        self._check_partner(method, facts)
        recipe = self.recipe.validated(facts.train_images)
        run = RunSpec(
            dataset=dataset,
            network=self.network,
            method=method,
            recipe=recipe,
            seed=self.source.seed,
            partner=self.source.partner,
        )
        if problem := mixing_problem(method, recipe) or fit_problem(run, facts):
            raise StudyError(f"{self.where}: {self.source.method}: {problem}{self._advice}")
        explicit = explicit_settings(self._written(), {})
        if problem := ineffective_default(method, recipe, explicit):
            raise StudyError(f"{self.where}: {problem}")
        spec = TrainedTeacher(run=run)
        return TeacherNode(
            name=name,
            id=spec.identity,
            spec=spec,
            origin=spec.origin,
            extra=objective_profile(run, facts),
        )

    def with_partner(self, partner: str, where: str, advice: str) -> TeacherTraining:
        """Return the same training with a student that the teacher is to suit.

        Args:
            partner: the student's network.
            where: as `where`.
            advice: as `advice`.
        """
        source = self.source.model_copy(update={"partner": partner})
        return replace(self, source=source, where=where, advice=advice)

    def notes(self, node: TeacherNode) -> list[str]:
        """Return notes on settings of the teacher that have no full effect."""
        notes = notes_on_long_settings(node.spec.run.method, node.spec.run.recipe)
        return [f"{self.where}: {note}" for note in notes]

    @property
    def _advice(self) -> str:
        return f"; {self.advice}" if self.advice else ""

    def _written(self) -> SheetMethod:
        # `like`: a sum may be too long for the name of a method.
        return SheetMethod(
            name=PLAIN_METHOD, like=self.source.method, settings=self.source.settings
        )

    def method(self) -> MethodSpec:
        """Return the resolved method.

        Raises:
            StudyError: it does not exist, needs a teacher itself, replaces the classifier, or a
                setting is not allowed.
        """
        name = self.source.method
        for part in name.split("+"):
            if part not in method_names():
                raise StudyError(
                    f"{self.where}: method: unknown '{part}'{suggest(part, teacher_methods())}"
                )
        method = resolve_method(self._written(), {}, self.where)
        if needs := teacher_needs(method):
            reads = ", ".join(sorted(need.replace("_", " ") for need in needs))
            raise StudyError(
                f"{self.where}: method: {name} reads {reads}, and a teacher has no teacher; "
                f"allowed: {', '.join(teacher_methods())}"
            )
        for term in classifier_terms(method):
            raise StudyError(
                f"{self.where}: method: {term} replaces the network's classifier, and a teacher "
                f"has its own; allowed: {', '.join(teacher_methods())}"
            )
        return method

    def _check_partner(self, method: MethodSpec, facts: DatasetFacts) -> None:
        """Check the student that the teacher is to suit.

        Raises:
            StudyError: it is missing, superfluous, unknown, or the teacher's own network.
        """
        name, partner = self.source.method, self.source.partner
        if partner is None:
            if uses_partner(method):
                raise StudyError(
                    f"{self.where}: method: {name} trains a teacher to suit a student; write "
                    "partner: NETWORK"
                )
            return
        if not uses_partner(method):
            users = [each for each in teacher_methods() if _uses_partner(each)]
            raise StudyError(
                f"{self.where}: partner: {name} uses none; leave it out, or train the teacher by "
                f"{' or '.join(users)}"
            )
        check_network_at(f"{self.where}: partner", partner, facts, is_trained=True)
        if partner == self.network:
            raise StudyError(
                f"{self.where}: partner: {network_label(partner)} is the teacher's own network "
                f"(circular); name the network of its student{self._advice}"
            )


def check_circular_partners(nodes: Iterable[TeacherNode]) -> None:
    """Check that no two teachers of a sheet are trained to suit each other's networks.

    Raises:
        StudyError: two are; names both.
    """
    suited = {}
    for node in nodes:
        if node.spec.kind == "trained" and node.spec.run.partner:
            suited.setdefault((node.spec.network, node.spec.run.partner), node.name)
    for (network, partner), name in suited.items():
        if (partner, network) in suited:
            other = suited[partner, network]
            raise StudyError(
                f"teachers: {name} is a {network_label(network)} that is to suit "
                f"{network_label(partner)}, and {other} is a {network_label(partner)} that is to "
                f"suit {network_label(network)} (circular partners); keep one of them"
            )


def _uses_partner(name: str) -> bool:
    return uses_partner(resolve_method(SheetMethod(name=name), {}))
