"""The pairs and seeds that are proposed for a budget."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from skd.planning.budget_proposal import Proposal, proposal_sheet_lines, propose_pairs
from skd.study.sheet import Sheet, SheetPair
from tests.builders.planned_studies import study

PAIRS = (("resnet56", "resnet20"), ("vgg13", "resnet20"), ("vgg13", "MobileNetV2"))
STUDY = study(PAIRS, ("student", "kd"), seeds=3)
TEACHERS = {"resnet56": 30.0, "vgg13": 5.0}


def runs(seconds: float = 10.0) -> dict[str, dict[int, float]]:
    return {cell.key: dict.fromkeys(cell.runs, seconds) for cell in STUDY.cells}


def test_cheapest_first_and_what_is_shared_is_paid_once() -> None:
    # vgg13 with resnet20: 5 + 2 · 30; then MobileNetV2's teacher, or resnet20 alone, exists.
    assert propose_pairs(STUDY, TEACHERS, runs(), 65.0) == Proposal((PAIRS[1],), (0, 1, 2), 65.0)
    # Its runs, 30 alone and 30 distilled, cost as much as resnet56 and 30 distilled: order decides.
    assert propose_pairs(STUDY, TEACHERS, runs(), 125.0).pairs == (PAIRS[1], PAIRS[0])
    assert propose_pairs(STUDY, TEACHERS, runs(), 1e9).seconds == 35 + 5 * 30


def test_an_available_teacher_and_finished_runs_cost_nothing() -> None:
    remaining = {**runs(), "vgg13--resnet20/kd": {}, "resnet20/student": {}}
    proposal = propose_pairs(STUDY, {}, remaining, 30.0)
    assert (proposal.pairs, proposal.seconds) == ((PAIRS[0],), 30.0)


def test_fewer_seeds_where_no_pair_fits() -> None:
    proposal = propose_pairs(STUDY, TEACHERS, runs(), 50.0)
    assert proposal == Proposal((PAIRS[1],), (0, 1), 45.0)


def test_nothing_fits() -> None:
    assert propose_pairs(STUDY, TEACHERS, runs(), 24.0) == Proposal(smallest=25.0)


def test_nothing_is_left() -> None:
    assert propose_pairs(STUDY, TEACHERS, {}, 1.0) == Proposal((), (0, 1, 2), 0.0)


@given(budget=st.floats(0, 300), seconds=st.floats(0.1, 30))
def test_a_proposal_keeps_to_the_budget(budget, seconds) -> None:
    proposal = propose_pairs(STUDY, TEACHERS, runs(seconds), budget)
    assert proposal.seconds <= budget
    assert (proposal.smallest is not None) == (not proposal.pairs)
    if proposal.smallest is not None:
        assert proposal.smallest > budget


def test_the_lines_are_of_a_sheet() -> None:
    pairs = [
        SheetPair(teacher="vgg13", student="vgg8", settings={"dkd": {"beta": 6}}, without=("crd",)),
        SheetPair(teacher="vgg13", student="resnet20"),
    ]
    proposal = Proposal((("vgg13", "vgg8"), ("vgg13", "resnet20")), (0, 1), 1.0)
    lines = proposal_sheet_lines(proposal, pairs)
    assert lines[-1] == "seeds: 2"
    sheet = {
        "title": "t",
        "dataset": {"name": "cifar100"},
        "teachers": {"vgg13": {"train": {"seed": 0}}},
        "methods": ["student", "crd"],
        **yaml.safe_load("\n".join(lines)),
    }
    assert Sheet.model_validate(sheet).pairs == tuple(pairs)
    assert proposal_sheet_lines(Proposal((), (3, 5)), pairs) == ["pairs:", "seeds: [3, 5]"]
