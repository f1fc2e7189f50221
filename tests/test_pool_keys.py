"""A key of a task is an object of the user's: what it raises costs its own task at most."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, Final, HierarchicalTaskPoolRunner, Retry, Task
from tests.pool_support import ERROR, FINAL, Envelope, envelopes, one

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [
    pytest.mark.usefixtures("way"),
]


class Mute:
    """Has no text."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Unequal:
    """Cannot be compared."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


class Fickle:
    """Has a hash so many times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __hash__(self) -> int:
        self.times -= 1
        if self.times < 0:
            raise RuntimeError("no hash")
        return 1


async def fails() -> None:
    await asyncio.sleep(0)
    raise OSError("no disk")


def fails_at_once() -> None:
    raise OSError("no disk")


async def yields_after_its_end() -> AsyncIterator[Any]:
    yield Final(1)
    yield Mute()


async def waits() -> int:
    for _ in range(5):
        await asyncio.sleep(0)
    return 1


def returns_a_coroutine() -> Any:
    class Odd(Mute):
        pass

    async def coroutine(_: Odd) -> None: ...

    return coroutine(Odd())


async def found_by(tasks: list[Any]) -> list[Envelope]:
    """The envelopes of a run by the ids of their tasks, each of which has one; the last of them is one that all is well with."""
    capacity = CapacitySource(3)
    runner = HierarchicalTaskPoolRunner([*tasks, one], capacity)
    async with asyncio.timeout(10):
        found = await envelopes(runner)
    assert capacity.held == 0
    found.sort(key=lambda envelope: envelope.task_id)
    assert [envelope.task_id for envelope in found] == list(range(1, len(tasks) + 2))
    assert (found[-1].type, found[-1].value) == (FINAL, 1)
    return found


@pytest.mark.parametrize("terms", [{}, {"priority": 1}, {"retry": Retry(1, backoff=0)}])
@pytest.mark.parametrize("fn", [fails, fails_at_once])
async def test_error_of_a_task_whose_key_has_no_text(fn: Any, terms: dict[str, Any]) -> None:
    key = Mute()
    found = await found_by([Task(fn, key=key, **terms)])
    assert found[0].key is key
    assert isinstance(found[0].error, OSError)


async def test_whatever_else_is_said_of_a_task_whose_key_has_no_text() -> None:
    async def cancels() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    tasks: list[Any] = [
        Task(one, key=Mute()),
        Task(yields_after_its_end, key=Mute()),
        Task(threading.Event().wait, 0.02, thread=True, key=Mute(), timeout=0.01),
        Task(returns_a_coroutine, thread=True, key=Mute()),
        Task(asyncio.Event().wait, key=Mute(), timeout=0.01),
        Task(cancels, key=Mute()),
        Task(next, iter(()), key=Mute()),
    ]
    found = await found_by(tasks)
    names = [type(envelope.error).__name__ for envelope in found]
    assert names[0] == "NoneType"
    assert "TimeoutError" in names[2]
    assert names[3:5] == ["TypeError", "TimeoutError"]
    assert names[5] == "CancelledError"
    assert names[6] == "RuntimeError"
    assert found[1].type is ERROR


async def test_key_without_a_text_that_another_task_has() -> None:
    key = Mute()
    found = await found_by([Task(waits, key=key), Task(waits, key=key)])
    assert found[0].value == 1
    assert isinstance(found[1].error, ValueError)
    assert "key <Mute> is that of task 1" in str(found[1].error)


async def test_key_that_cannot_be_compared_costs_its_task_alone() -> None:
    tasks = [Task(waits, key=Unequal()), Task(waits, key=Unequal())]
    found = await found_by(tasks)
    assert found[0].value == 1
    assert str(found[1].error) == "no comparison"


@pytest.mark.parametrize("times", range(1, 8))
async def test_key_whose_hash_raises_costs_its_task_alone(times: int) -> None:
    found = await found_by([Task(waits, key=Fickle(times)), Task(waits, key=5)])
    assert found[1].value == 1
    assert found[0].value == 1 or str(found[0].error) == "no hash"
