"""Snapshots of a tree of capacities."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
from pickle import dumps, loads
from typing import Any

import pytest

from headrace import CapacitySource, Rate
from tests.support import until, yield_to_loop


def pickled(shot: Any) -> Any:
    return loads(dumps(shot))  # noqa: S301 - data of this test


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_snapshot_can_be_copied_but_not_changed(duplicate: Any) -> None:
    root = CapacitySource({"slots": 2, "tokens": Rate(5, burst=9)}, name="root")
    leaf = CapacitySource(1, root, name="leaf")
    with leaf.acquire_sync():
        shot = root.snapshot()
    other = duplicate(shot)
    assert other == shot
    assert hash(other) == hash(shot)
    assert other != root.snapshot()
    # Converts to plain dictionaries, which JSON accepts.
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


# Statistics, compared with values that are computed by hand.


@pytest.mark.virtual
async def test_bypasses_are_counted_and_then_slots_reserved() -> None:
    root = CapacitySource(4, name="root", clock=asyncio.get_running_loop().time)
    large, small = (CapacitySource(4, root, name=name) for name in ("large", "small"))
    held = await small.acquire(3, owner=None)
    waiting = asyncio.ensure_future(large.acquire(2))
    await until(lambda: large.waiting == 1)
    for number in range(8):
        assert [node.bypassed for node in root.snapshot()] == [number, number, 0]
        async with small.acquire(1):
            assert not any(node.reserved["slots"] for node in root.snapshot())
    shot = root.snapshot()
    assert [node.bypassed for node in shot] == [8, 8, 0]
    # The free slot is reserved from now on, at the node where slots are short.
    assert [node.reserved for node in shot] == [{"slots": 1}, {"slots": 0}, {"slots": 0}]
    blocked = asyncio.ensure_future(small.acquire(1))
    await yield_to_loop(3)
    assert (small.waiting, small.acquire_nowait(1)) == (1, None)
    held.settle(slots=1)
    (await waiting).release()
    (await blocked).release()
    held.release()
    shot = root.snapshot()
    assert [node.bypassed for node in shot] == [8, 8, 0]
    assert not any(node.reserved["slots"] for node in shot)


@pytest.mark.virtual
async def test_mean_hold_is_a_moving_average() -> None:
    root = CapacitySource(4, clock=asyncio.get_running_loop().time)
    leaf, idle = CapacitySource(4, root), CapacitySource(4, root)
    assert root.snapshot().mean_hold is None
    async with leaf.acquire(2):
        await asyncio.sleep(8)
    # The cost does not count.
    assert [node.mean_hold for node in root.snapshot()] == [8, 8, None]
    async with leaf.acquire(1):
        await asyncio.sleep(16)
    # Each new hold has a weight of an eighth.
    assert leaf.snapshot().mean_hold == 8 + (16 - 8) / 8
    async with idle.acquire(1):
        pass
    assert root.snapshot().mean_hold == 9 - 9 / 8
    assert idle.snapshot().mean_hold == 0


@pytest.mark.virtual
async def test_shares_received_and_due() -> None:
    root = CapacitySource(2, clock=asyncio.get_running_loop().time)
    children = [CapacitySource(2, root, weight=weight) for weight in (3, 1, 6)]
    first, second, _ = children
    assert [node.share_received for node in root.snapshot()] == [None] * 4
    # A child that is alone is due everything: no other one has held or requested anything.
    assert [node.share_due for node in root.snapshot()] == [None, 1, 1, 1]
    # Nothing counts while no request waits.
    async with first.acquire(2):
        await asyncio.sleep(100)
    assert first.snapshot().share_received is None

    async def work(node: CapacitySource, seconds: float) -> None:
        while True:
            async with node.acquire():
                await asyncio.sleep(seconds)

    workers = [
        asyncio.create_task(work(node, seconds))
        for node, seconds in ((first, 1), (second, 3))
        for _ in range(4)
    ]
    # Two slots for 800 s: 1,200 slot-seconds for the first child, 400 for the second, whose leases take 3 each.
    await asyncio.sleep(800)
    shot = root.snapshot()
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
    assert [node.share_received for node in shot.children] == pytest.approx(
        [3 / 4, 1 / 4, 0], abs=0.005
    )
    assert [node.granted for node in shot.children] == pytest.approx([1200, 133, 0], abs=6)
    assert [node.mean_hold for node in shot.children] == [pytest.approx(1), pytest.approx(3), None]
    # The idle child is due the share that it would get if it became active now.
    assert [node.share_due for node in shot.children] == [3 / 4, 1 / 4, 6 / 10]
