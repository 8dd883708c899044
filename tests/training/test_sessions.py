"""The sessions of a run: what a resumed run says of the code that trained it."""

import pytest

from skd.code.accepted import Acceptance
from skd.training import sessions
from skd.training.sessions import Sessions

MOVE = Acceptance(
    changes={"skd/old.py": ("1", None), "skd/new.py": (None, "2")},
    why="a move",
    at="2026-01-01T00:00:00+00:00",
)


@pytest.mark.parametrize(
    ("earlier", "accepted", "code"),
    [
        ({"skd/new.py": "2"}, (), {"skd/new.py": "2"}),
        ({"skd/old.py": "1"}, (MOVE,), {"skd/new.py": "2"}),
        ({"skd/old.py": "1"}, (), {"skd/new.py": "unknown+2", "skd/old.py": "1+unknown"}),
        ({"skd/old.py": "0"}, (MOVE,), {"skd/new.py": "unknown+2", "skd/old.py": "0+unknown"}),
        (None, (MOVE,), {"skd/new.py": "unknown+2"}),
    ],
    ids=["same code", "accepted change", "other change", "change of other code", "not recorded"],
)
def test_a_resumed_run_has_the_digests_of_changes_that_are_not_accepted(
    monkeypatch: pytest.MonkeyPatch, earlier, accepted, code
) -> None:
    monkeypatch.setattr(sessions, "read_acceptances", lambda: accepted)
    current = Sessions(["torch, now"], {"skd/new.py": "2"})
    resumed = current.after({"sessions": ["torch, before"], "code": earlier})
    assert resumed.descriptions == ["torch, before", "torch, now"]
    assert resumed.code == code
    assert bool(resumed.changed_files()) == (code != current.code)
