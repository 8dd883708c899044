"""Which source files a run's numbers depend on, and when a changed one is accepted."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.code.accepted import (
    Acceptance,
    AcceptedError,
    add_acceptance,
    changes_since,
    read_acceptances,
)
from skd.code.closure import NOT_FOLLOWED, closure_digests, read_source_closure
from skd.models import network_family
from skd.study.code_roots import LOOP_FILE, run_source_roots
from skd.study.spec import DatasetSpec, MethodSpec, Recipe, RunSpec, TermSpec
from skd.training.current_code import current_run_code, join_session_digests
from tests.builders.paths import ROOT


def run(*terms: str, network: str = "resnet8", dataset: str = "digits") -> RunSpec:
    specs = tuple(TermSpec(term=name, version=1, settings={}) for name in terms)
    return RunSpec(
        dataset=DatasetSpec(name=dataset),
        network=network,
        method=MethodSpec(terms=specs),
        recipe=Recipe(),
        seed=0,
    )


def test_a_run_depends_on_its_own_files_and_not_on_others() -> None:
    files = set(current_run_code(run("kd")))
    assert {LOOP_FILE, "baselines/kd.py", "baselines/_precision.py", "skd/data/digits.py"} <= files
    assert {"skd/models/resnet.py", "skd/training/batch_norm.py"} <= files
    others = {
        "baselines/crd.py",
        "baselines/simplifier.py",
        "skd/models/vgg.py",
        "skd/data/cifar100.py",
    }
    assert not others & files
    assert "baselines/_negatives.py" in current_run_code(run("crd"))
    assert "skd/models/vgg.py" in current_run_code(run("kd", network="vgg8"))


def test_code_that_only_reads_sheets_stores_files_or_prints_is_excluded() -> None:
    files = set(current_run_code(run("kd")))
    files_of_the_store = {"skd/study/sheet.py", "skd/store/store.py", "skd/common/lease.py"}
    assert not files_of_the_store & files
    assert not any(path.startswith(("report/", "workflow/")) for path in files)
    for pattern in NOT_FOLLOWED:
        place = pattern.rstrip("*").replace(".", "/")
        assert (ROOT / place / "__init__.py").is_file() or (ROOT / f"{place}.py").is_file(), pattern


def test_the_files_are_found_without_importing_them(tmp_path: Path) -> None:
    for path in (
        "skd/training/loop.py",
        "skd/study/spec.py",
        "baselines/kd.py",
        "baselines/_own.py",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "skd/__init__.py").write_text("")
    (tmp_path / "baselines/kd.py").write_text("import nowhere\nfrom baselines._own import x\n")
    (tmp_path / "baselines/_own.py").write_text("from skd.study.spec import y\n")
    closure = read_source_closure(["baselines/kd.py", "baselines/gone.py"], tmp_path)
    assert set(closure) == {"baselines/kd.py", "baselines/_own.py", "skd/study/spec.py"}
    assert set(closure_digests(["baselines/_own.py"], closure)) == {
        "baselines/_own.py",
        "skd/study/spec.py",
    }
    before = closure["baselines/_own.py"].digest
    (tmp_path / "baselines/_own.py").write_text("def (")  # which would end a run
    assert read_source_closure(["baselines/kd.py"], tmp_path)["baselines/_own.py"].digest != before


def test_roots_name_files_that_are_there() -> None:
    spec = run("cross_entropy", "kd")
    roots = run_source_roots(spec, network_family)
    assert all((ROOT / root).is_file() for root in roots)


def accepted(**changes: tuple[str | None, str | None]) -> Acceptance:
    return Acceptance(changes=changes, why="a test", at="2025-01-01T00:00:00+00:00")


THEN = {"a": "1", "b": "1", "c": "1"}
RENAMED = accepted(b=("1", None), d=(None, "1"))


@pytest.mark.parametrize(
    ("now", "known", "changed"),
    [
        (THEN, [], ""),
        ({**THEN, "a": "2"}, [], "a"),
        ({**THEN, "a": "2"}, [accepted(a=("1", "2"))], ""),
        ({**THEN, "a": "3"}, [accepted(a=("1", "2"))], "a"),
        ({**THEN, "a": "3"}, [accepted(a=("1", "2")), accepted(a=("2", "3"))], ""),
        ({**THEN, "a": "2"}, [accepted(a=("2", "1"))], "a"),  # only the reverse change is accepted
        ({**THEN, "a": "2", "b": "2"}, [accepted(a=("1", "2"))], "b"),
        # Changes belong together: half of them may have an effect.
        ({**THEN, "a": "2"}, [accepted(a=("1", "2"), b=("1", "2"))], "a"),
        ({**THEN, "a": "2"}, [accepted(a=("1", "2"), b=("7", "8"))], "a"),
        # A file in the acceptance that this run does not depend on has no effect on it.
        ({**THEN, "a": "2"}, [accepted(a=("1", "2"), x=("7", "8"))], ""),
        ({"a": "1", "c": "1", "d": "1"}, [], "b d"),
        ({"a": "1", "c": "1", "d": "1"}, [RENAMED], ""),
        ({"a": "1", "c": "1"}, [RENAMED], ""),
        ({"a": "1", "c": "1", "d": "2"}, [RENAMED], "d"),
        ({**THEN, "d": "1"}, [accepted(d=(None, "1"))], ""),
        ({"a": "1", "b": "1"}, [accepted(c=("1", None))], ""),
        # A changed file that the run no longer imports goes with the change of its importer only.
        ({"a": "2", "c": "1"}, [accepted(a=("1", "2"), b=("1", "2"))], ""),
        ({"a": "1", "c": "1"}, [accepted(a=("1", "2"), b=("1", "2"))], "b"),
        ({"a": "3", "c": "1"}, [accepted(a=("1", "2"), b=("1", "2"))], "a"),
    ],
)
def test_accepted_changes_do_not_count(
    now: dict[str, str], known: list[Acceptance], changed: str
) -> None:
    assert " ".join(changes_since(THEN, now, known)) == changed


@given(
    states=st.lists(st.fixed_dictionaries(dict.fromkeys("abc", st.sampled_from("12"))), min_size=2),
)
def test_a_chain_of_accepted_states_carries_the_first_to_the_last(
    states: list[dict[str, str]],
) -> None:
    chain = []
    for before, after in pairwise(states):
        if changes := changes_since(before, after):
            chain.append(accepted(**changes))
    assert not changes_since(states[0], states[-1], chain)
    assert not changes_since(states[0], states[0], chain)


def test_the_file_of_accepted_changes_grows_and_says_when_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "accepted.json"
    assert read_acceptances(path) == ()
    for one in (accepted(a=("1", "2")), RENAMED):
        add_acceptance(one, path)
    assert read_acceptances(path) == (accepted(a=("1", "2")), RENAMED)
    for damaged in ("7", "[1]", "[", '[{"why": 1}]'):
        path.write_text(damaged)
        with pytest.raises(AcceptedError, match=r"accepted.json cannot be read"):
            read_acceptances(path)


def test_the_projects_own_file_accepts_real_changes_only() -> None:
    for acceptance in read_acceptances():
        assert all(before != after for before, after in acceptance.changes.values())


def test_code_that_changed_between_sessions_is_none_of_todays() -> None:
    now = {"a": "1", "b": "1"}
    assert join_session_digests(now, now) == now
    assert join_session_digests({"a": "1", "b": "0"}, now) == {"a": "1", "b": "0+1"}
    assert join_session_digests(join_session_digests({"a": "1", "b": "0"}, now), now) == {
        "a": "1",
        "b": "0+1",
    }
    assert join_session_digests({"a": "1"}, now) == {"a": "1", "b": "unknown+1"}
    assert join_session_digests(None, now) == {"a": "unknown+1", "b": "unknown+1"}
    assert changes_since(join_session_digests({"a": "1", "b": "0"}, now), now) == {
        "b": ("0+1", "1")
    }
