"""The teachers that a sheet's methods train for themselves, one for each pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from skd.common.names import validate_name
from skd.common.wrapped_networks import network_label
from skd.data.images import DatasetFacts
from skd.expansion.sheet_teachers import declared_training, network_of
from skd.expansion.teacher_training import TeacherTraining
from skd.losses.methods import CROSS_ENTROPY, uses_partner
from skd.study.expansion import TeacherNode
from skd.study.sheet import (
    MethodTeacher,
    Sheet,
    SheetMethod,
    SheetPair,
    SweptMethod,
    TrainSource,
    network_in_specs,
)
from skd.study.sheet_files import StudyError
from skd.study.sheet_recipes import WrittenRecipe


@dataclass
class MethodTeachers:
    """Resolves the teachers of methods that name how their teacher is trained.

    Attributes:
        sheet: the sheet.
        recipe: the study's recipe.
        dataset: number and size of its images.
        declared: the teachers of the sheet, by name.
        added: the further teachers by name, filled by `node`.
        notes: settings without full effect, filled by `node`; the same note may occur twice.
    """

    sheet: Sheet
    recipe: WrittenRecipe
    dataset: DatasetFacts
    declared: Mapping[str, TeacherNode]
    added: dict[str, TeacherNode] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def node(self, pair: SheetPair, method: SheetMethod) -> TeacherNode:
        """Return the teacher of a pair and a method.

        It is the pair's teacher, unless the method trains one for itself: the pair's teacher
        trained again, by the method's teacher's method, with the pair's student as partner. Methods
        that train the same teacher share it.

        Raises:
            StudyError: the pair's teacher is imported and the sheet gives no seed, or the teacher
                cannot be trained in this way; names the place.
        """
        if method.teacher is None:
            return self.declared[pair.teacher]
        training = self._training(pair, method, method.teacher)
        node = training.node("", self.sheet.dataset, self.dataset)
        same = [
            known
            for known in (
                self.declared[pair.teacher],
                *self.declared.values(),
                *self.added.values(),
            )
            if known.id == node.id
        ]
        if same:
            return same[0]
        node = node.model_copy(update={"name": self._name(pair, method, training)})
        self.added[node.name] = node
        self.notes += training.notes(node)
        return node

    def _training(
        self, pair: SheetPair, method: SheetMethod, how: MethodTeacher
    ) -> TeacherTraining:
        """Return how the teacher of a pair and a method is trained."""
        where = f"methods: {method.name}: teacher"
        entry = self.sheet.teachers[pair.teacher]
        leave_out = f"leave the method out of the pair with without: [{method.name}]"
        if entry.train is not None:
            declared = declared_training(self.sheet, pair.teacher, self.recipe)
            seed, recipe = entry.train.seed, declared.recipe
            settings = {CROSS_ENTROPY: entry.train.settings.get(CROSS_ENTROPY, {})}
        else:
            seed, recipe, settings = 0, self.recipe, {}
            if how.seed is None:
                network = network_label(network_of(self.sheet, pair.teacher))
                raise StudyError(
                    f"{where}: {pair.teacher} is imported, so {how.method} cannot train it again; "
                    f"give 'teacher' a seed to train a new {network} from "
                    f"scratch, train {pair.teacher} here, or {leave_out}"
                )
        settings = {
            name: {**settings.get(name, {}), **how.settings.get(name, {})}
            for name in dict.fromkeys([*settings, *how.settings])
        }
        source = TrainSource(
            seed=seed if how.seed is None else how.seed,
            method=how.method,
            settings={name: values for name, values in settings.items() if values},
        )
        training = TeacherTraining(
            network_of(self.sheet, pair.teacher),
            source,
            recipe.with_changes(how.recipe, f"{where}: recipe"),
            where,
        )
        if not uses_partner(training.method()):
            return training
        partner = network_in_specs(self.sheet, pair.student)
        return training.with_partner(partner, f"{where}: {pair.teacher}--{pair.student}", leave_out)

    def _name(self, pair: SheetPair, method: SheetMethod, training: TeacherTraining) -> str:
        """Return a name for a further teacher, from those of its teacher, method and student.

        Raises:
            StudyError: there is no free name, or it is too long for a file's name.
        """
        student = f"-{pair.student}" if training.source.partner else ""
        # All methods of a sweep have the same teacher.
        own = method.swept_from if isinstance(method, SweptMethod) else method.name
        names = [f"{pair.teacher}-{how}{student}" for how in (training.source.method, own)]
        free = [name for name in names if name not in {**self.declared, **self.added}]
        if not free:
            raise StudyError(
                f"{training.where}: the names {' and '.join(names)} belong to other teachers; "
                "rename the method or those teachers"
            )
        try:
            return validate_name(free[0])
        except ValueError as error:
            raise StudyError(
                f"{training.where}: {error}; give the teacher {pair.teacher} a shorter name"
            ) from error
