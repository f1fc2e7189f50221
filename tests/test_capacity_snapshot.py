"""What a tree of capacities says of itself."""

from __future__ import annotations

import copy
import dataclasses
import json
from pickle import dumps, loads
from typing import Any

import pytest

from headrace import CapacitySource, Rate


def pickled(shot: Any) -> Any:
    return loads(dumps(shot))  # noqa: S301 - its own


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_a_snapshot_can_be_copied_and_not_changed(again: Any) -> None:
    root = CapacitySource({"slots": 2, "tokens": Rate(5, burst=9)}, name="root")
    leaf = CapacitySource(1, root, name="leaf")
    with leaf.acquire_sync():
        shot = root.snapshot()
    other = again(shot)
    assert other == shot
    assert hash(other) == hash(shot)
    assert other != root.snapshot()
    # Down to plain dictionaries, which JSON takes.
    plain = json.loads(json.dumps(dataclasses.asdict(other)))
    assert plain["limit"]["tokens"] == {"amount": 5, "per": 60, "burst": 9}
    assert [child["held"] for child in plain["children"]] == [{"slots": 1}]
    held = other.children[0].held
    for change in (
        lambda: held.__setitem__("slots", 2),
        lambda: held.__delitem__("slots"),
        lambda: held.update(slots=2),
        lambda: held.pop("slots"),
        held.popitem,
        lambda: held.setdefault("tokens", 1),
        lambda: held.__ior__({"slots": 2}),
        held.clear,
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    assert held == {"slots": 1}
