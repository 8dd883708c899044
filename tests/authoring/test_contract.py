"""Every method works on every architecture family; the contract reports broken terms."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import skd.losses.term
import skd.training.step
from skd.authoring.contract import (
    TRIAL_PAIRS,
    check_contract,
    check_method,
    with_simplifier,
)
from skd.authoring.image_mixing import undeclared_mixing
from skd.authoring.settings_check import check_settings
from skd.authoring.trial import (
    TRIAL_DATASET,
    make_teacher,
    student_only_trial,
    trial_spec,
)
from skd.data import dataset_facts, load_dataset
from skd.losses.discovery import term_classes
from skd.losses.methods import _listed_methods, method_names, resolve_method
from skd.losses.term import Batch, Classification, Peers, Term, TermContext, TermSettings
from skd.models import Outputs, _builders
from skd.study.sheet import SheetMethod, StudyError
from skd.study.spec import DatasetSpec, Recipe

TEN = [
    "student", "kd", "dkd", "crd", "reviewkd",
    "skd", "skd+kd", "skd+dkd", "skd+crd", "skd+reviewkd",
]  # fmt: skip
SUMS = ["kd+crd", "dkd+reviewkd", "skd+fitnet"]
METHODS = list(dict.fromkeys([*TEN, *method_names(), *SUMS]))
# Pairs of PAIRS that a method cannot train, with a word of the reason.
NOT_EQUALLY_MANY, NO_PREACTIVATIONS = ("vgg8", "resnet8"), ("MobileNetV2", "ResNet50")
REFUSED = {
    "at": {NOT_EQUALLY_MANY: "one to one"},
    "sftn": {NOT_EQUALLY_MANY: "one to one"},
    "vid": {NOT_EQUALLY_MANY: "one to one"},
    "reviewkd": {NOT_EQUALLY_MANY: "one by one", NO_PREACTIVATIONS: "pre-activations"},
    "ofd": {
        NOT_EQUALLY_MANY: "one to one",
        NO_PREACTIVATIONS: "pre-activations",
        ("vgg8", "MobileNetV2"): "student_features: activated",
        ("ShuffleV2", "wrn_16_1"): "its stage 1 has none",
    },
    "simkd": {
        NO_PREACTIVATIONS: "layers between its last map and its classifier",
        ("ShuffleV2", "wrn_16_1"): "layers between its last map and its classifier",
    },
}


def test_the_pairs_have_each_family_on_both_sides_and_never_one_twice() -> None:
    def family(name: str) -> str:
        return type(build(name)).__module__

    def build(name: str) -> nn.Module:
        return _builders()[name](10)

    # tests/workflow/test_imagenette.py tries ImageNet's networks with every method on photos.
    imagenet = {"skd.models.imagenet_resnet", "skd.models.mobilenetv1"}
    every = {family(name) for name in _builders()} - imagenet
    assert len(every) == 7
    assert {family(teacher) for teacher, _ in TRIAL_PAIRS} == every
    assert {family(student) for _, student in TRIAL_PAIRS} == every
    assert all(family(teacher) != family(student) for teacher, student in TRIAL_PAIRS)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_contract_on_every_family(method: str) -> None:
    pairs = TRIAL_PAIRS[::3] if "+" in method else TRIAL_PAIRS  # summands are tried on all pairs
    findings = list(check_method(resolve_method(SheetMethod(name=method), {}), pairs))
    assert [finding for finding in findings if finding.problem] == []
    refused = {finding.subject: finding.refused for finding in findings if finding.refused}
    expected = {}
    for part in method.split("+"):
        reasons = REFUSED.get(part, {}).items()
        expected |= {f"{t} → {s}": reason for (t, s), reason in reasons if (t, s) in pairs}
    assert refused.keys() == expected.keys()
    for subject, reason in expected.items():
        assert reason in refused[subject]
    checks = {finding.check for finding in findings if not finding.refused}
    thorough = {"repeats", "resumes", "declares its needs", "declares reads_epoch"}
    thorough |= {"declares mixes_images", "declares reads_target"}
    if resolve_method(SheetMethod(name=method), {}).transformations:
        thorough.add("declares partition_problem")
    assert checks == {"two steps", *thorough}


LOGIT_RULES = [name for name, term in term_classes().items() if "teacher_logits" in term.needs]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGIT_RULES)
def test_every_rule_on_logits_teaches_the_simplifier_in_front_of_it(name: str) -> None:
    method = with_simplifier(name)
    assert method.terms == ({"term": name, "teacher": "simplified"},)
    findings = list(check_method(resolve_method(method, {}), TRIAL_PAIRS[:2]))
    assert findings
    assert [finding for finding in findings if finding.problem] == []


def test_crd_resumes_where_it_draws_without_replacement() -> None:
    few = SheetMethod(name="few", like="crd", settings={"crd": {"negatives": 4}})
    findings = list(check_method(resolve_method(few, {}), TRIAL_PAIRS[:1]))
    assert {finding.check for finding in findings} >= {"repeats", "resumes"}
    assert [finding for finding in findings if finding.problem] == []


@pytest.mark.parametrize("name", term_classes())
def test_every_setting_is_described_and_changes_a_run(name: str) -> None:
    findings = list(check_settings(name, TRIAL_PAIRS))
    assert [finding for finding in findings if finding.problem] == []
    own = set(term_classes()[name].Settings.model_fields) - set(TermSettings.model_fields)
    assert {finding.subject for finding in findings} == {f"setting {field}" for field in own}


@pytest.mark.parametrize("name", sorted(set(term_classes()) - {"cross_entropy"}))
def test_an_unknown_option_is_refused_with_the_allowed_ones(name: str) -> None:
    with pytest.raises(StudyError, match=r"unknown key 'wieght'.*did you mean 'weight'.*warmup"):
        resolve_method(SheetMethod(name=name, settings={name: {"wieght": 1}}), {})


# Broken terms are reported. Each of the rules below fails one check.


class Rule(Term):
    needs = frozenset({"teacher_logits"})

    def forward(self, batch: Batch) -> Tensor:
        return (batch.student.logits - batch.teacher.logits).square().mean()


class DrawsGlobally(Rule):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) * torch.rand(())


class ReadsTooMuch(Rule):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + 0 * batch.teacher.pooled.sum()


class ReadsEpoch(Term):
    needs = frozenset({"teacher_logits"})

    def forward(self, batch: Batch) -> Tensor:
        return (batch.student.logits - batch.teacher.logits).square().mean() * batch.epoch


class MixesImages(Rule):
    def forward(self, batch: Batch) -> Tensor:
        gap = batch.student.logits - batch.teacher.logits
        return super().forward(batch) + gap.mean(dim=0).square().mean()


class SaysThatItMixes(MixesImages):
    mixes_images = True


class SaysItNeedlessly(Rule):
    mixes_images = True


class DrawsForAPart(Rule):
    def forward(self, batch: Batch) -> Tensor:
        generator = batch.draws.generator("factors")
        return super().forward(batch) * torch.rand((), generator=generator)


class DrawsForAGroup(Rule):
    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.group = context.group

    def forward(self, batch: Batch) -> Tensor:
        squares = (batch.student.logits - batch.teacher.logits).square()
        losses = []
        size = self.group or len(squares)
        for group, rows in enumerate(squares.split(size), start=batch.first // size):
            generator = batch.draws.generator(f"factor {group}")
            losses.append(rows.mean() * torch.rand((), generator=generator))
        return torch.stack(losses).mean()


class CountsParts(Rule):
    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> Tensor:
        self.count += 1
        return super().forward(batch)


class CountsSteps(Rule):
    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def after_step(self, peers: Peers) -> None:
        self.count += 1


class ReadsLogits(Rule):
    needs = frozenset({"teacher_features"})


class ReadsTarget(Rule):
    reads_target = False

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + F.cross_entropy(batch.student.logits, batch.target)


class UsesTheClassifier(Rule):
    needs = frozenset({"teacher_logits", "teacher_classifier"})

    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.teacher = context.teacher_modules
        self.layer = nn.Linear(context.student.pooled.shape[1], context.teacher.pooled.shape[1])

    def forward(self, batch: Batch) -> Tensor:
        logits = self.teacher.classifier(self.layer(batch.student.pooled))
        return super().forward(batch) + (logits - batch.teacher.logits).square().mean()


class UsesItUndeclared(UsesTheClassifier):
    needs = frozenset({"teacher_logits"})


class ReadsNormsUndeclared(Rule):
    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.count = len(context.teacher_modules.batch_norms)


class DeclaresItNeedlessly(Rule):
    needs = frozenset({"teacher_logits", "teacher_classifier", "teacher_stages"})


class Classifies(Rule):
    """Replaces the student's classifier, which has no gradient then."""

    replaces_classifier = True

    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.layer = nn.Linear(context.student.stages[-1].shape[1], context.num_classes)

    def classify(self, student: Outputs) -> Classification:
        features = student.stages[-1].mean(dim=(2, 3))
        return Classification(self.layer(features), features)


class TrainsBothClassifiers(Classifies):
    def classify(self, student: Outputs) -> Classification:
        own = super().classify(student)
        return Classification(own.logits + student.logits, own.features)


class ClassifiesAnEarlyStage(Classifies):
    def classify(self, student: Outputs) -> Classification:
        features = student.stages[1].mean(dim=(2, 3)).mean(dim=1, keepdim=True)
        return Classification(self.layer(features.expand(-1, 64)), features)


class DetachesTheStudent(Rule):
    def forward(self, batch: Batch) -> Tensor:
        return (batch.student.logits.detach() - batch.teacher.logits).square().mean()


class DetachesTheTeacher(Rule):
    def forward(self, batch: Batch) -> Tensor:
        return (batch.student.logits - batch.teacher.logits.detach()).square().mean()


class HasIdleModule(Rule):
    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.idle = nn.Linear(2, 2)


class KeepsStateOutsideBuffers(Rule):
    count = 0

    def forward(self, batch: Batch) -> Tensor:
        self.count += 1
        return super().forward(batch) * self.count


class IsNotFinite(Rule):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) / 0


class Fails(Rule):
    def forward(self, batch: Batch) -> Tensor:
        raise RuntimeError("a slip of the pen")


class IsLessThanDocumented(Rule):
    class Settings(TermSettings):
        idle: float = skd.losses.term.Field(1.0, description="changes nothing")
        bare: float = 1.0

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) * self.settings.bare


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch):
    def check(rule: type[Term], simplified: bool = False) -> dict[str, str]:
        known = {**term_classes(), "rule": rule}
        for module in MODULES_WITH_TERMS:
            if hasattr(module, "term_classes"):
                monkeypatch.setattr(module, "term_classes", lambda: known)
            if hasattr(module, "term_class"):
                monkeypatch.setattr(module, "term_class", known.__getitem__)
        skd.expansion.dry_run._profile_or_problem.cache_clear()
        skd.expansion.dry_run._measure_term.cache_clear()
        method = with_simplifier("rule") if simplified else SheetMethod(name="rule")
        findings = [*check_method(resolve_method(method, {}), TRIAL_PAIRS[:1])]
        findings += check_settings("rule", TRIAL_PAIRS[:1])
        skd.expansion.dry_run._profile_or_problem.cache_clear()
        skd.expansion.dry_run._measure_term.cache_clear()
        return {f"{f.subject}: {f.check}": f.problem for f in findings if f.problem}

    return check


MODULES_WITH_TERMS: list[ModuleType] = [
    sys.modules[name]
    for name in (
        "skd.losses.term",
        "skd.losses.methods",
        "skd.losses.objective",
        "skd.authoring.contract",
        "skd.authoring.settings_check",
    )
]


@pytest.mark.parametrize(
    ("rule", "check", "words"),
    [
        (DrawsGlobally, "repeats", "global generator"),
        (ReadsTooMuch, "declares its needs", "reads more of the teacher"),
        (ReadsEpoch, "declares reads_epoch", "reads_epoch = True"),
        (ReadsTarget, "declares reads_target", "do not declare `reads_target = False`"),
        (MixesImages, "declares mixes_images", "mixes_images = True"),
        (DrawsForAPart, "declares mixes_images", "by `TermContext.group`"),
        (CountsParts, "declares mixes_images", "move them in `after_step`"),
        (ReadsLogits, "declares its needs", "reads more of the teacher"),
        (HasIdleModule, "two steps", "idle.weight: no gradient"),
        (DetachesTheStudent, "two steps", "the loss rule has no gradient for the student"),
        (KeepsStateOutsideBuffers, "resumes", "is all its state in buffers"),
        (IsNotFinite, "two steps", "not finite"),
        (Fails, "two steps", "a slip of the pen"),
        (UsesItUndeclared, "two steps", "add 'teacher_classifier' to the class's `needs`"),
        (ReadsNormsUndeclared, "declares its needs", "add 'teacher_batch_norms' to the class's"),
        (DeclaresItNeedlessly, "declares its needs", "remove teacher_classifier, teacher_stages"),
        (TrainsBothClassifiers, "two steps", "student.fc.weight: a gradient"),
        (ClassifiesAnEarlyStage, "two steps", "student.layer3.0.conv1.weight: no gradient"),
    ],
)
def test_a_broken_rule_is_reported(problems, rule: type[Term], check: str, words: str) -> None:
    reported = problems(rule)
    assert words in reported[f"{' → '.join(TRIAL_PAIRS[0])}: {check}"]
    assert words not in str(problems(Rule))


@pytest.mark.parametrize("rule", [UsesTheClassifier, Classifies])
def test_a_rule_may_use_the_teachers_classifier_or_replace_the_students(problems, rule) -> None:
    assert problems(rule) == {}


MIXING = f"{' → '.join(TRIAL_PAIRS[0])}: declares mixes_images"


@pytest.mark.parametrize(
    "rule", [SaysThatItMixes, SaysItNeedlessly, DrawsForAGroup, CountsSteps, Rule]
)
def test_a_rule_may_mix_images_if_it_declares_it_and_draw_by_groups(problems, rule) -> None:
    assert MIXING not in problems(rule)


def test_mixing_is_reported_for_each_term_but_not_for_the_simplifier(problems) -> None:
    message = problems(MixesImages, simplified=True)[MIXING]
    assert message.startswith("rule: its loss is ")
    assert MIXING not in problems(Rule, simplified=True)


@pytest.mark.parametrize("name", term_classes())
def test_exactly_the_rules_that_compare_images_declare_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparing = {"sp", "rkd", "pkt", "dist", "mlkd", "mlkd_two_views"}
    term = term_classes()[name]
    assert term.mixes_images == (name in comparing)
    monkeypatch.setattr(term, "mixes_images", False)
    own = {} if name == "cross_entropy" else {name: {"weight": 1.0}}
    method = "student" if name == "cross_entropy" else name
    spec = trial_spec(
        resolve_method(SheetMethod(name="m", like=method, settings=own), {}), *TRIAL_PAIRS[0]
    )
    problem = undeclared_mixing(spec, make_teacher(spec))
    assert problem.startswith(f"{name}: its loss") if name in comparing else not problem


def test_a_rule_that_detaches_the_teacher_is_reported_with_a_simplifier(problems) -> None:
    reported = problems(DetachesTheTeacher, simplified=True)
    assert (
        "simplifier.output.weight: no gradient"
        in reported[f"{' → '.join(TRIAL_PAIRS[0])}: two steps"]
    )
    assert problems(Rule, simplified=True) == {}


class HasAnOptionalSetting(Rule):
    class Settings(TermSettings):
        times: int | None = skd.losses.term.Field(None, description="a factor, or none")
        note: str = skd.losses.term.Field("", description="what no check can guess")

    def forward(self, batch: Batch) -> Tensor:
        loss = super().forward(batch)
        return loss if self.settings.times is None else loss * self.settings.times


def test_an_optional_setting_is_tried_and_one_that_cannot_be_guessed_is_reported(problems) -> None:
    assert problems(HasAnOptionalSetting) == {}


class CannotBeMadeWithoutStorage(Rule):
    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.share = torch.eye(context.num_classes)[context.train_labels].mean().item()


def test_a_rule_that_reads_values_when_it_is_constructed_is_accepted(problems) -> None:
    assert problems(CannotBeMadeWithoutStorage) == {}


def test_a_parameter_that_the_optimiser_lacks_or_has_twice_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = skd.training.step.make_optimizer
    spec = resolve_method(SheetMethod(name="crd"), {})

    def lacking(
        recipe: Recipe, student: nn.Module, objective: nn.Module, **options: bool
    ) -> torch.optim.SGD:
        optimizer = make(recipe, student, objective, **options)
        for group in optimizer.param_groups[1:]:
            for parameter in group["params"]:
                del optimizer.state[parameter]
        del optimizer.param_groups[1:]
        return optimizer

    monkeypatch.setattr("skd.training.step.make_optimizer", lacking)
    findings = list(check_method(spec, TRIAL_PAIRS[:1]))
    assert "not in the optimiser exactly once" in findings[0].problem


def test_another_start_or_other_views_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = resolve_method(SheetMethod(name="kd"), {})
    control = student_only_trial(TRIAL_PAIRS[0][1])
    started = replace(control, first_weights={k: v + 1 for k, v in control.first_weights.items()})
    other_views = replace(control, views=[views + 1 for views in control.views])
    for changed, words in ((started, "does not start as"), (other_views, "sees other images")):
        monkeypatch.setattr(
            "skd.authoring.contract.student_only_trial", lambda _, changed=changed: changed
        )
        assert words in next(check_method(spec, TRIAL_PAIRS[:1])).problem


def test_settings_without_description_or_effect_are_reported(problems) -> None:
    reported = problems(IsLessThanDocumented)
    assert (
        "no other value changes what the student learns"
        in reported["setting idle: documented and used"]
    )
    assert "it has no description" in reported["setting bare: documented and used"]
    assert problems(Rule) == {}


def test_a_changed_teacher_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = trial_spec(resolve_method(SheetMethod(name="kd"), {}), *TRIAL_PAIRS[0])
    teacher = make_teacher(spec)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    monkeypatch.setattr(
        "skd.authoring.contract.make_teacher", lambda spec: make_teacher(spec).train()
    )
    findings = list(check_method(resolve_method(SheetMethod(name="kd"), {}), TRIAL_PAIRS[:1]))
    assert "the teacher was changed" in findings[0].problem


def test_an_unknown_name_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(StudyError, match=r"unknown method 'dkb'.*did you mean 'dkd'"):
        list(check_contract("dkb"))


@pytest.mark.parametrize("name", ["digits", "synthetic"])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_facts_are_those_of_the_loaded_images(name: str, split: str) -> None:
    for count in (None, 60):
        spec = DatasetSpec(name=name, split=split, train_limit=count)
        known, images = dataset_facts(spec), load_dataset(spec)
        assert known.num_classes == images.num_classes
        assert known.train_images == len(images.train_images)
        assert images.train_images.shape[1:] == (3, known.size, known.size)


def test_the_ten_and_the_listed_methods_are_among_those_checked() -> None:
    assert set(_listed_methods()) <= set(METHODS)
    assert set(term_classes()) - {"cross_entropy"} <= set(METHODS)
    assert TRIAL_DATASET.name == "digits"
