"""A task's key is a user-defined object. If its methods raise an error, only its own task fails."""

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
    pytest.mark.usefixtures("task_path"),
]


class Mute:
    """A key whose `repr` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Unequal:
    """A key whose comparison raises."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


class RaisingHash:
    """A key whose hash raises after the given number of calls."""

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


async def yields_after_final() -> AsyncIterator[Any]:
    yield Final(1)
    yield Mute()


async def wait() -> int:
    for _ in range(5):
        await asyncio.sleep(0)
    return 1


def returns_a_coroutine() -> Any:
    class Odd(Mute):
        pass

    async def coroutine(_: Odd) -> None: ...

    return coroutine(Odd())


async def run_sorted(tasks: list[Any]) -> list[Envelope]:
    """Run the tasks and one more that succeeds; return their envelopes, one each, ordered by task id."""
    capacity = CapacitySource(3)
    runner = HierarchicalTaskPoolRunner([*tasks, one], capacity)
    async with asyncio.timeout(10):
        found = await envelopes(runner)
    assert capacity.held == 0
    found.sort(key=lambda envelope: envelope.task_id)
    assert [envelope.task_id for envelope in found] == list(range(1, len(tasks) + 2))
    assert (found[-1].type, found[-1].value) == (FINAL, 1)
    return found


@pytest.mark.parametrize("options", [{}, {"priority": 1}, {"retry": Retry(1, backoff=0)}])
@pytest.mark.parametrize("fn", [fails, fails_at_once])
async def test_error_of_task_with_raising_repr(fn: Any, options: dict[str, Any]) -> None:
    key = Mute()
    found = await run_sorted([Task(fn, key=key, **options)])
    assert found[0].key is key
    assert isinstance(found[0].error, OSError)


async def test_other_outcomes_of_task_with_raising_repr() -> None:
    async def cancels() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    tasks: list[Any] = [
        Task(one, key=Mute()),
        Task(yields_after_final, key=Mute()),
        Task(threading.Event().wait, 0.02, thread=True, key=Mute(), timeout=0.01),
        Task(returns_a_coroutine, thread=True, key=Mute()),
        Task(asyncio.Event().wait, key=Mute(), timeout=0.01),
        Task(cancels, key=Mute()),
        Task(next, iter(()), key=Mute()),
    ]
    found = await run_sorted(tasks)
    names = [type(envelope.error).__name__ for envelope in found]
    assert names[0] == "NoneType"
    assert "TimeoutError" in names[2]
    assert names[3:5] == ["TypeError", "TimeoutError"]
    assert names[5] == "CancelledError"
    assert names[6] == "RuntimeError"
    assert found[1].type is ERROR


async def test_duplicate_key_with_raising_repr() -> None:
    key = Mute()
    found = await run_sorted([Task(wait, key=key), Task(wait, key=key)])
    assert found[0].value == 1
    assert isinstance(found[1].error, ValueError)
    assert "key <Mute> is that of task 1" in str(found[1].error)


async def test_key_with_raising_eq_fails_only_its_task() -> None:
    tasks = [Task(wait, key=Unequal()), Task(wait, key=Unequal())]
    found = await run_sorted(tasks)
    assert found[0].value == 1
    assert str(found[1].error) == "no comparison"


@pytest.mark.parametrize("times", range(1, 8))
async def test_key_with_raising_hash_fails_only_its_task(times: int) -> None:
    found = await run_sorted([Task(wait, key=RaisingHash(times)), Task(wait, key=5)])
    assert found[1].value == 1
    assert found[0].value == 1 or str(found[0].error) == "no hash"


class Shown(int):
    """A number that is shown in another way."""

    def __str__(self) -> str:
        return "seven"


async def test_task_is_named_after_its_key() -> None:
    async def name() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    long = "x" * 3000
    keys = {
        0: "0",
        40: "40",
        -3: "-3",
        2**64 - 1: "18446744073709551615",
        2**64: "18446744073709551616",
        True: "True",
        Shown(7): "seven",
        "é": "é",
        long: long,
        (1, 2): "(1, 2)",
        None: "11",
    }
    tasks = [Task(name, key=key) for key in [*keys, None]]
    runner = HierarchicalTaskPoolRunner(tasks, CapacitySource(1), name="mill")
    async with runner.run_tasks() as progress:
        values = [envelope.value async for envelope in progress]
    # A task without a key is named after its number.
    assert values == [f"mill: task {text}" for text in [*keys.values(), "12"]]
