"""Dead envelopes are recycled without visible effect, and their times are those of the loop."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import Any

import pytest

from headrace import Task
from tests.pool_support import ERROR, ISOLATIONS, envelopes, pool

MANY = 600
"""More tasks than the free list of envelopes holds."""


class Thing:
    """An object that can be weakly referenced."""


@pytest.fixture(params=ISOLATIONS, ids=["alone", "shared"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    chosen: dict[str, Any] = request.param
    return chosen


async def test_kept_envelope_never_changes(options: dict[str, Any]) -> None:
    async def work(number: int) -> Any:
        if number % 3 == 0:
            raise ValueError(number)
        return [number]

    kept = []
    runner = pool((Task(work, number, key=number) for number in range(MANY)), **options)
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            # All other envelopes are freed at once and recycled.
            if envelope.task_id % 7 == 0:
                kept.append(envelope)
    assert sorted(envelope.task_id for envelope in kept) == list(range(7, MANY + 1, 7))
    for envelope in kept:
        number: Any = envelope.key
        assert number == envelope.task_id - 1
        if envelope.type is ERROR:
            assert (number % 3, envelope.value) == (0, None)
            assert str(envelope.error) == str(number)
        else:
            assert (envelope.value, envelope.error) == ([number], None)


async def test_value_is_freed_with_its_envelope(options: dict[str, Any]) -> None:
    async def work() -> Thing:
        return Thing()

    alive: list[weakref.ref[Thing]] = []
    async with pool([work] * MANY, **options).run_tasks() as progress:
        while (envelope := await anext(progress, None)) is not None:
            alive.append(weakref.ref(envelope.value))
    # They are freed without the garbage collector.
    assert len(alive) == MANY
    assert not any(thing() for thing in alive)


async def test_destructor_of_value_can_create_envelopes(options: dict[str, Any]) -> None:
    created: list[Any] = []

    class Creating:
        def __del__(self) -> None:
            # Recycles the envelope that is being freed.
            recycled = type(dying)(0, None, dying.type, self.number, None, 1, 0.0, 0.0, 0.0)
            created.append(recycled)

        def __init__(self, number: int) -> None:
            self.number = number

    async def work(number: int) -> Creating:
        return Creating(number)

    dying = (await envelopes(pool([Thing])))[0]
    async with pool([Task(work, n) for n in range(MANY)], **options).run_tasks() as progress:
        while await anext(progress, None):
            pass
    assert sorted(envelope.value for envelope in created) == list(range(MANY))


async def test_weak_reference_to_envelope_dies_with_it(options: dict[str, Any]) -> None:
    freed: list[int] = []
    async with pool([Thing] * MANY, **options).run_tasks() as progress:
        async for envelope in progress:
            number = envelope.task_id
            finalizer = weakref.finalize(envelope, freed.append, number)
            del envelope
            assert freed[-1] == number
            assert not finalizer.alive
    assert freed == list(range(1, MANY + 1))


async def test_envelope_in_a_reference_cycle_is_collected(options: dict[str, Any]) -> None:
    async def work() -> Thing:
        return Thing()

    alive: list[weakref.ref[Thing]] = []
    async with pool([work] * MANY, **options).run_tasks() as progress:
        while (envelope := await anext(progress, None)) is not None:
            thing: Any = envelope.value
            # After the first hundreds, most envelopes are recycled ones.
            thing.envelope = envelope
            alive.append(weakref.ref(thing))
            del thing
    gc.collect()
    assert len(alive) == MANY
    assert not any(thing() for thing in alive)


async def test_recycled_envelopes_are_invisible_to_gc(options: dict[str, Any]) -> None:
    [envelope] = await envelopes(pool([Thing]))
    kind = type(envelope)
    await envelopes(pool([Thing] * MANY, **options))
    gc.collect()
    assert [thing for thing in gc.get_objects() if type(thing) is kind] == [envelope]


async def test_times_are_those_of_the_loop(options: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    last = start
    for envelope in await envelopes(pool([Thing] * 50, **options)):
        assert envelope.started is not None
        assert envelope.finished is not None
        assert last <= envelope.queued <= envelope.started <= envelope.finished
        last = envelope.queued
    assert last <= loop.time()


async def test_times_follow_a_patched_clock(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if type(asyncio.get_running_loop()).time is not asyncio.BaseEventLoop.time:
        pytest.skip("this loop has its own clock")
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    [envelope] = await envelopes(pool([Thing], **options))
    assert (envelope.queued, envelope.started, envelope.finished) == (5.0, 5.0, 5.0)
