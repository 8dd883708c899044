"""`skd show` accepts the beginning of an identity or an address in a study."""

from pathlib import Path

import pytest

from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from skd.study.expansion_files import expansion_path
from tests.builders import tiny
from tests.builders.commands import Skd
from tests.builders.show_output import printed_error, printed_json, printed_rows

pytestmark = pytest.mark.usefixtures("store")

# Accepted arguments.


def test_a_beginning_is_enough_where_it_is_the_only_one(skd: Skd, store: Store) -> None:
    for name in ("aaaa0000bbbb0000", "aaaa0001bbbb0000", "aaaa0001"):
        store.run(name).folder.mkdir(parents=True)
    assert printed_rows(skd, "AAAA0000")["title"].startswith("run aaaa0000bbbb0000")
    assert printed_rows(skd, "aaaa0001")["title"].startswith("run aaaa0001:")
    message = printed_error(skd, "aaaa")
    assert "3 identities start with" in message
    assert "aaaa0000bbbb0000, aaaa0001, aaaa0001bbbb0000" in message
    assert "too short" in printed_error(skd, "aaa")


def test_candidates_have_their_names_and_are_not_too_many(
    skd: Skd, study: Expansion, store: Store
) -> None:
    identity = study.cell(tiny.PAIR, "kd").runs[0]
    store.run(identity[:4] + "zzzz").folder.mkdir(parents=True)
    assert f"{identity} (tiny: {tiny.PAIR}/kd seed 0)" in printed_error(skd, identity[:4])
    for number in range(20):
        store.run(f"qqqq{number:04}").folder.mkdir(parents=True)
    assert printed_error(skd, "qqqq").rstrip().endswith(", qqqq0007, and 12 more")


def test_an_unknown_identity_says_how_to_list_them(skd: Skd) -> None:
    message = printed_error(skd, "ffffffff")
    assert "no run or teacher 'ffffffff' in results" in message
    assert "`ls results/runs results/teachers`" in message
    assert "skd status STUDY" in message
    assert "there is no results folder" in printed_error(skd, "ffffffff", "--results", "gone")


def test_an_address_is_read_in_the_expansion(skd: Skd, study: Expansion) -> None:
    for method in ("kd", "skd+kd"):
        identity = study.cell(tiny.PAIR, method).runs[1]
        assert printed_json(skd, f"tiny/{tiny.PAIR}/{method}/1")["id"] == identity
    alone = study.cell("resnet8", "student").runs[0]
    assert printed_json(skd, "tiny/resnet8/student/0")["id"] == alone
    assert (
        printed_json(skd, f"tiny/{tiny.PAIR}/student/0")["id"] == alone
    )  # the pairs share the run


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tniy/teacher", "unknown study 'tniy' (did you mean 'tiny'?); allowed: tiny"),
        ("tiny/techer", "has no teacher 'techer' (did you mean 'teacher'?)"),
        (f"tiny/{tiny.PAIR}/ks/0", f"(did you mean '{tiny.PAIR}/kd'?)"),
        ("tiny/other--resnet8/student/0", "has no cell 'other--resnet8/student'"),
        (f"tiny/{tiny.PAIR}/kd/9", f"no seed '9' of tiny/{tiny.PAIR}/kd; allowed: 0, 1"),
        (f"tiny/{tiny.PAIR}/kd", "STUDY/PAIR/METHOD/SEED"),
    ],
)
def test_an_address_that_leads_nowhere_names_what_is_allowed(
    skd: Skd, address: str, words: str
) -> None:
    assert words in printed_error(skd, address)


def test_a_study_of_another_release_is_not_searched_and_this_is_reported(
    skd: Skd, done: StoreEntry
) -> None:
    path = expansion_path(Path("results"), "tiny")
    path.write_text(path.read_text().replace('"cells"', '"cellules"'))
    rows = printed_rows(skd, done.id)
    assert rows["What it is/in studies"].splitlines() == [
        "none of the expanded ones",
        "not searched: tiny, its specs.json is damaged, edited or from another release; first: skd "
        "expand tiny",
    ]
    assert printed_json(skd, done.id)["studies_not_searched"] == ["tiny"]
    assert "skd expand tiny" in printed_error(skd, "tiny/teacher")
