"""Checks that every method must pass, on every architecture family, in a few CPU steps.

`skd check-baseline` and the tests run them, with the real training loop on small images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch

from skd.authoring.findings import Finding, failed, run_check
from skd.authoring.image_mixing import undeclared_coupling, undeclared_mixing
from skd.authoring.settings_check import Pairs, check_settings, logits_method
from skd.authoring.trial import (
    TRIAL_DATASET,
    TRIAL_STEPS,
    GuardedTeacher,
    MethodTrial,
    make_teacher,
    run_trial,
    same_final_state,
    same_tensors,
    same_weights,
    student_only_trial,
    trial_parameters,
    trial_spec,
)
from skd.data import dataset_facts
from skd.expansion.dry_run import fit_problem
from skd.losses.discovery import term_class, term_classes, transformation_classes
from skd.losses.methods import resolve_method, teacher_needs
from skd.losses.objective import trainable_parameters
from skd.losses.teacher_modules import UndeclaredNeedError
from skd.losses.term import MODULE_NEEDS
from skd.study.sheet import SheetMethod
from skd.study.spec import MethodSpec, RunSpec
from skd.training.loop import Training

# (teacher, student): each family as both, with equal and with different numbers of stages.
TRIAL_PAIRS = (
    ("wrn_16_1", "resnet8"),
    ("resnet8", "ShuffleV1"),
    ("ShuffleV1", "ShuffleV2"),
    ("ShuffleV2", "wrn_16_1"),
    ("ResNet50", "vgg8"),
    ("vgg8", "MobileNetV2"),
    ("MobileNetV2", "ResNet50"),
    ("vgg8", "resnet8"),
)


def check_contract(name: str, quick: bool = False) -> Iterator[tuple[str, Finding]]:
    """Yield (method, finding) for a term, a transformation, or any method or sum.

    A term is checked alone and combined with SKD: as SKD's loss on simplified logits if it reads
    logits. A term that trains a teacher to suit a student is not combined: a teacher has no
    teacher. A transformation is checked with KD and with DKD on its logits.

    Args:
        name: the name of a file in ``baselines/``, or a method's name.
        quick: check the first pair that fits, and stop at the first problem.

    Raises:
        StudyError: there is no such method; names the allowed ones.
    """
    for method, finding in _all_findings(name, quick):
        yield method, finding
        if quick and finding.problem:
            return


def _all_findings(name: str, first_only: bool) -> Iterator[tuple[str, Finding]]:
    has_error = False
    for method in _methods_to_check(name):
        for finding in check_method(resolve_method(method, {}), first_only=first_only):
            has_error |= bool(finding.traceback)
            yield method.name, finding
    if name not in (*term_classes(), *transformation_classes()):
        return
    if has_error:
        refused = "not tried: repair the errors first"
        yield name, Finding("settings", "documented and used", refused=refused)
        return
    for finding in check_settings(name, TRIAL_PAIRS[:1] if first_only else TRIAL_PAIRS):
        yield name, finding


def _methods_to_check(name: str) -> list[SheetMethod]:
    if name in transformation_classes():
        return [logits_method(name, term, {}) for term in ("kd", "dkd")]
    alone = SheetMethod(name=name)
    if name in term_classes() and not term_class(name).uses_partner:
        return [alone, with_simplifier(name)]
    return [alone]


def with_simplifier(name: str) -> SheetMethod:
    """Return a term combined with SKD: on simplified logits if it reads logits, else in a sum."""
    if "teacher_logits" not in term_class(name).needs:
        return SheetMethod(name=f"skd+{name}")
    term = {"term": name, "teacher": "simplified"}
    return SheetMethod(name=f"skd-{name}", terms=(term,))


def check_method(
    method: MethodSpec, pairs: Pairs = TRIAL_PAIRS, first_only: bool = False
) -> Iterator[Finding]:
    """Yield the results of all checks of a method, for each pair of networks.

    On each pair: losses are finite; exactly the trainable modules get gradients; the teacher does
    not change; and the initial student, the order and the views are those of every method with the
    seed. On the first pair that fits: a repeated and a resumed run end with the same bits, whatever
    the state of the global generator; and the parts declare what they read of the teacher, whether
    they read the epoch, the classes of images, and whether they compare the images of a batch. If
    two steps raise an error, the other checks of the pair are not tried.

    Args:
        method: its terms and transformations.
        pairs: (teacher, student) by name.
        first_only: stop after the first pair that fits.
    """
    fits = checked_all = False
    for teacher, student in pairs:
        spec = trial_spec(method, teacher, student)
        subject = f"{teacher} → {student}"
        try:
            reason = fit_problem(spec, dataset_facts(TRIAL_DATASET))
        except UndeclaredNeedError as error:
            yield Finding(subject, "declares its needs", problem=str(error))
            return
        except Exception as error:
            fits = True
            yield failed(subject, "fits", error)
            if first_only:
                break
            continue
        if reason:
            yield Finding(subject, "fits", refused=reason)
            continue
        fits = True
        first = run_check(subject, "two steps", lambda spec=spec: _two_steps_problem(spec))
        yield first
        if not checked_all and not first.traceback:
            checked_all = True
            for check, find_problem in _thorough_checks(method).items():
                yield run_check(subject, check, lambda find=find_problem, spec=spec: find(spec))
        if first_only:
            break
    if not fits:
        yield Finding("all pairs", "fits", problem="it fits none of the pairs")


def _thorough_checks(method: MethodSpec) -> dict[str, Callable[[RunSpec], str]]:
    checks = {
        "repeats": _repetition_problem,
        "resumes": _resuming_problem,
        "declares its needs": _needs_problem,
        "declares reads_epoch": _epoch_problem,
        "declares mixes_images": _mixing_problem,
        "declares reads_target": _target_problem,
    }
    if method.transformations:
        checks["declares partition_problem"] = _coupling_problem
    return checks


def _two_steps_problem(spec: RunSpec) -> str:
    """Check losses, gradients, optimiser, teacher and the student's start in two steps."""
    teacher = make_teacher(spec)
    before = copy.deepcopy(teacher.state_dict()) if teacher else {}
    trial = run_trial(spec, teacher)
    control = student_only_trial(spec.network)
    problems = [
        f"{name} is not finite"
        for name, value in trial.training.sums.items()
        if not math.isfinite(value.item())
    ]
    problems += _gradient_problems(trial)
    if teacher is not None:
        if not same_tensors(before, teacher.state_dict()) or teacher.training:
            problems.append("the teacher was changed")
        if any(parameter.grad is not None for parameter in teacher.parameters()):
            problems.append("a gradient reached the teacher")
    if not same_tensors(trial.first_weights, control.first_weights):
        problems.append("the student does not start as the student alone does")
    if not all(torch.equal(a, b) for a, b in zip(trial.views, control.views, strict=True)):
        problems.append("it sees other images than the student alone")
    return "; ".join(problems)


def _gradient_problems(trial: MethodTrial) -> list[str]:
    """Check that gradients reach exactly the trainable parameters, which the optimiser has.

    If a term replaces the student's classifier, none reaches the student's own, and one may reach
    its other layers after the last stage.
    """
    training, problems = trial.training, []
    trainable = {id(parameter) for parameter in trainable_parameters(training.student)}
    trainable |= {id(parameter) for parameter in trainable_parameters(training.objective)}
    unused, optional = _replaced_parameters(training)
    for name, parameter in trial_parameters(training).items():
        if id(parameter) in optional:
            continue
        if trial.gradient_reached[name] != (id(parameter) in trainable - unused):
            problems.append(f"{name}: {'a' if trial.gradient_reached[name] else 'no'} gradient")
    for name, has_gradient in trial.gradient_to_student.items():
        if not has_gradient and name not in training.objective.transformations:
            problems.append(f"the loss {name} has no gradient for the student")
    groups = [p for group in training.optimizer.param_groups for p in group["params"]]
    if len(groups) != len(trainable) or {id(parameter) for parameter in groups} != trainable:
        problems.append("a trainable parameter is not in the optimiser exactly once")
    return problems


def _replaced_parameters(training: Training) -> tuple[set[int], set[int]]:
    """Return the parameters that a replaced classifier leaves without gradient, by identity.

    Returns:
        The parameters of the student's own classifier, and those of its other layers after the last
        stage. Both are empty if no term replaces the classifier.
    """
    if training.objective.classifier() is None:
        return set(), set()
    student = copy.deepcopy(training.student).eval()
    outputs = student.forward_features(torch.zeros(1, 3, *[training.views.size] * 2))
    last = [maps[-1].sum() for maps in (outputs.stages, outputs.preactivations) if maps]
    gradients = torch.autograd.grad(sum(last), [*student.parameters()], allow_unused=True)
    pairs = zip(training.student.parameters(), gradients, strict=True)
    after = {id(parameter) for parameter, gradient in pairs if gradient is None}
    final = {id(parameter) for parameter in training.student.final_layer().parameters()}
    return final, after - final


def _repetition_problem(spec: RunSpec) -> str:
    """Check that a run does not use the global generator, and has the same bits when repeated."""
    first = run_trial(spec, make_teacher(spec))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(12345)
        state = torch.get_rng_state()
        second = run_trial(spec, make_teacher(spec))
        drew_globally = not torch.equal(state, torch.get_rng_state())
    if drew_globally:
        return "it draws from torch's global generator, not from batch.draws"
    return "" if same_final_state(first, second) else "a second run ends with other bits"


def _resuming_problem(spec: RunSpec) -> str:
    """Check that a run that is resumed after its first step ends with the same bits."""
    uninterrupted = run_trial(spec, make_teacher(spec))
    resumed = run_trial(
        spec, make_teacher(spec), uninterrupted.state_after_first_step, steps=TRIAL_STEPS - 1
    )
    if same_final_state(uninterrupted, resumed):
        return ""
    return "resumed after the first step, it ends with other bits: is all its state in buffers?"


def _epoch_problem(spec: RunSpec) -> str:
    """Check `reads_epoch`: a recorded step is replayed in all epochs with the same graph key."""
    first = run_trial(spec, make_teacher(spec))
    graph_key = first.training.objective.graph_key
    later = next((epoch for epoch in range(2, 1000) if graph_key(epoch) == graph_key(1)), None)
    if later is None or same_final_state(
        first, run_trial(spec, make_teacher(spec), batch_epoch=later)
    ):
        return ""
    return (
        "its loss depends on the batch's epoch: declare `reads_epoch = True` in the term's class; "
        "a transformation sets a buffer in `begin_epoch`"
    )


def _mixing_problem(spec: RunSpec) -> str:
    """Check `mixes_images`: batches are divided among processes and into parts."""
    return undeclared_mixing(spec, make_teacher(spec))


def _target_problem(spec: RunSpec) -> str:
    """Check `reads_target`: a recipe that mixes images refuses what reads their classes."""
    first = run_trial(spec, make_teacher(spec))
    if same_weights(first, run_trial(spec, make_teacher(spec), other_targets=True)):
        return ""
    return "its loss depends on the batch's target: do not declare `reads_target = False`"


def _coupling_problem(spec: RunSpec) -> str:
    """Check `partition_problem` of the transformations, for the same reason."""
    return undeclared_coupling(spec, make_teacher(spec))


def _needs_problem(spec: RunSpec) -> str:
    """Check that the method's parts declare what they read of the teacher, and use its modules."""
    teacher = make_teacher(spec)
    if teacher is None:
        return ""
    needs = teacher_needs(spec.method)
    guarded = GuardedTeacher(teacher, needs)
    if not same_final_state(run_trial(spec, teacher), run_trial(spec, guarded)):
        return f"it reads more of the teacher than its needs: {sorted(needs)}"
    if unused := needs & MODULE_NEEDS - guarded.used:
        return f"it never uses what it needs: remove {', '.join(sorted(unused))} from its needs"
    return ""
