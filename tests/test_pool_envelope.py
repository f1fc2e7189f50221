"""Envelopes are used again when they are dead, which nobody may notice; and their times are those of the loop."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import Any

import pytest

from headrace import Task
from tests.pool_support import ERROR, envelopes, pool

FAR = 600
"""More tasks than dead envelopes are kept."""


class Thing:
    """Something that tells when it is gone."""


@pytest.fixture(params=[{}, {"timeout": 3600}], ids=["plain", "timed"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    chosen: dict[str, Any] = request.param
    return chosen


async def test_envelope_that_is_kept_stays_as_it_is(options: dict[str, Any]) -> None:
    async def work(number: int) -> Any:
        if number % 3 == 0:
            raise ValueError(number)
        return [number]

    kept = []
    runner = pool((Task(work, number, key=number) for number in range(FAR)), **options)
    async with runner.run_tasks() as progress:
        async for envelope in progress:
            # All others die at once, and are used again.
            if envelope.task_id % 7 == 0:
                kept.append(envelope)
    assert sorted(envelope.task_id for envelope in kept) == list(range(7, FAR + 1, 7))
    for envelope in kept:
        number: Any = envelope.key
        assert number == envelope.task_id - 1
        if envelope.type is ERROR:
            assert (number % 3, envelope.value) == (0, None)
            assert str(envelope.error) == str(number)
        else:
            assert (envelope.value, envelope.error) == ([number], None)


async def test_value_goes_with_its_envelope(options: dict[str, Any]) -> None:
    async def work() -> Thing:
        return Thing()

    alive: list[weakref.ref[Thing]] = []
    async with pool([work] * FAR, **options).run_tasks() as progress:
        while (envelope := await anext(progress, None)) is not None:
            alive.append(weakref.ref(envelope.value))
    # No collection is needed for it.
    assert len(alive) == FAR
    assert not any(thing() for thing in alive)


async def test_value_may_do_anything_when_it_goes(options: dict[str, Any]) -> None:
    inside: list[Any] = []

    class Making:
        def __del__(self) -> None:
            # Takes the place of the one that is dying right now.
            again = type(dying)(0, None, dying.type, self.number, None, 1, 0.0, 0.0, 0.0)
            inside.append(again)

        def __init__(self, number: int) -> None:
            self.number = number

    async def work(number: int) -> Making:
        return Making(number)

    dying = (await envelopes(pool([Thing])))[0]
    async with pool([Task(work, n) for n in range(FAR)], **options).run_tasks() as progress:
        while await anext(progress, None):
            pass
    assert sorted(envelope.value for envelope in inside) == list(range(FAR))


async def test_weak_reference_to_an_envelope_dies_with_it(options: dict[str, Any]) -> None:
    told: list[int] = []
    async with pool([Thing] * FAR, **options).run_tasks() as progress:
        async for envelope in progress:
            number = envelope.task_id
            finalizer = weakref.finalize(envelope, told.append, number)
            del envelope
            assert told[-1] == number
            assert not finalizer.alive
    assert told == list(range(1, FAR + 1))


async def test_envelope_in_a_cycle_is_collected(options: dict[str, Any]) -> None:
    async def work() -> Thing:
        return Thing()

    alive: list[weakref.ref[Thing]] = []
    async with pool([work] * FAR, **options).run_tasks() as progress:
        while (envelope := await anext(progress, None)) is not None:
            thing: Any = envelope.value
            # From the second hundred on most are used for another time.
            thing.told_by = envelope
            alive.append(weakref.ref(thing))
            del thing
    gc.collect()
    assert len(alive) == FAR
    assert not any(thing() for thing in alive)


async def test_dead_envelopes_are_not_to_be_found(options: dict[str, Any]) -> None:
    [envelope] = await envelopes(pool([Thing]))
    kind = type(envelope)
    await envelopes(pool([Thing] * FAR, **options))
    gc.collect()
    assert [thing for thing in gc.get_objects() if type(thing) is kind] == [envelope]


async def test_times_are_those_of_the_clock_of_the_loop(options: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    last = begun
    for envelope in await envelopes(pool([Thing] * 50, **options)):
        assert envelope.started is not None
        assert envelope.finished is not None
        assert last <= envelope.queued <= envelope.started <= envelope.finished
        last = envelope.queued
    assert last <= loop.time()


async def test_times_are_those_of_a_clock_that_was_exchanged(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if type(asyncio.get_running_loop()).time is not asyncio.BaseEventLoop.time:
        pytest.skip("this loop has a clock of its own")
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    [envelope] = await envelopes(pool([Thing], **options))
    assert (envelope.queued, envelope.started, envelope.finished) == (5.0, 5.0, 5.0)
