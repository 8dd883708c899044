"""The methods of detailed figures: chosen by the sheet, or the references and the newest rule."""

import pytest

from skd.study.figure_choice import FigureChoice


@pytest.mark.parametrize(
    ("methods", "shown"),
    [
        (["student", "kd", "dkd", "skd", "new"], ("student", "kd", "skd", "new")),
        (["new", "student", "kd", "skd"], ("student", "kd", "skd")),
        (["a", "b"], ("b",)),
    ],
)
def test_the_default_is_the_references_and_the_last_method(methods, shown):
    assert FigureChoice().shown(methods) == shown


def test_a_sheet_may_choose_others():
    assert FigureChoice(methods=("dkd", "kd")).shown(["student", "kd", "dkd"]) == ("dkd", "kd")
