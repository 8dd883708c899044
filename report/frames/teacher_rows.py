"""The teachers of a study as rows of a frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from report.frames.run_state import read_run_state, with_relative_paths
from skd.code.accepted import Acceptance
from skd.common.wrapped_networks import network_label
from skd.store.records import TeacherCard
from skd.store.stale import code_changes_of
from skd.store.store import Store, StoreError
from skd.store.teacher_accuracy import accuracy_doubts
from skd.study.expansion import Expansion, TeacherNode

TEACHER_COLUMNS = [
    "name",
    "network",
    "kind",
    "id",
    "origin",
    "at_hand",
    "why",
    "doubts",
    "other_code",
    "test_top1",
    "test_top5",
    "parameters",
    "sha256",
    "source_sha256",
]
LEAK = "trained on the validation images too; its accuracy is on the test images"


def read_card(node: TeacherNode, store: Store) -> TeacherCard | str | None:
    """Return a teacher's card, the reason why it cannot be used, or ``None`` without a card."""
    try:
        card = store.teacher(node.id).card()
    except StoreError as error:
        return with_relative_paths(str(error), store)
    if card is not None and card.network != node.spec.network:
        its, wanted = network_label(card.network), network_label(node.spec.network)
        return f"its card is for a {its}, not for a {wanted}"
    return card


def teacher_row(
    node: TeacherNode,
    card: TeacherCard | str | None,
    expansion: Expansion,
    store: Store,
    accepted: Iterable[Acceptance],
) -> dict[str, Any]:
    """Return a teacher's values by `TEACHER_COLUMNS`.

    Args:
        node: the teacher in the study.
        card: what `read_card` returned.
        expansion: the study.
        store: the store that holds the teacher.
        accepted: changes of the code that did not change any numbers.
    """
    row: dict[str, Any] = {
        "name": node.name,
        "network": node.spec.network,
        "kind": node.spec.kind,
        "id": node.id,
        "origin": node.origin,
        "at_hand": False,
        "doubts": "",
        "other_code": "",
    }
    if isinstance(card, str):
        return row | {"why": card}
    if card is not None:
        values = card.model_dump(include=set(TEACHER_COLUMNS) - {"id", "name"})
        if node.leaks:
            values["origin"] += f", {LEAK}"
        doubts = accuracy_doubts(node.spec, card.test_top1, expansion.images.classes)
        other_code = ", ".join(_changed_files(node, expansion, store, accepted))
        own = {"at_hand": True, "doubts": "; ".join(doubts), "other_code": other_code}
        return row | values | own
    if node.spec.kind == "imported":
        return row | {"why": "not imported yet"}
    state = read_run_state(store, store.teacher(node.id), node.spec.run.seed)
    reason = f" ({state.reason})" if state.reason else ""
    return row | {"why": f"training: {state.outcome}{reason}"}


def _changed_files(
    node: TeacherNode, expansion: Expansion, store: Store, accepted: Iterable[Acceptance]
) -> list[str]:
    """Return the source files that have changed since the teacher was trained."""
    if node.spec.kind == "imported":
        return []
    record = read_run_state(store, store.teacher(node.id), node.spec.run.seed).record
    today = expansion.code_of(node.spec.run)
    changes = code_changes_of(record.code, today, accepted) if record else None
    return list(changes or ())
