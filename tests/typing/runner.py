"""The types that a checker infers for pools. Checked, never run."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Literal, assert_type

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    Lease,
    PoolSnapshot,
    PullReduceObj,
    PushPullBufferObj,
    Retry,
    SourceIterObj,
    Task,
    TaskProgressEnvelope,
    Verdict,
    classify,
    current_lease,
)
from headrace.http import observe
from headrace.pool import Executor, LoopExecutor, PullMapPoolObj, ThreadExecutor

if TYPE_CHECKING:
    from collections.abc import Callable


async def slow_length(text: str) -> int:
    return len(text)


def length(text: str) -> int:
    return len(text)


async def runner() -> None:
    queue: PushPullBufferObj[Task | Callable[[], Any]] = PushPullBufferObj()
    await queue.sink.next(Task(slow_length, "a", key=("k", 1), cost={"slots": 1, "tokens": 0.5}))
    pool = HierarchicalTaskPoolRunner(
        queue.source,
        CapacitySource(2),
        on_error="stop",
        ordered=True,
        window=10,
        retry=Retry(2, (ValueError, OSError), random=Random(1), classify=lambda _: "transient"),
        timeout=1,
    )
    async with pool.run_tasks() as progress:
        async for envelope in progress:
            assert_type(envelope, TaskProgressEnvelope[Any])
    assert_type(await pool.run(), list[Any])
    assert_type(await pool.drain(timeout=1.5), list[Any])
    assert_type(await pool.abort(wait=False), tuple[int, ...])
    assert_type(pool.cancel(1), bool)
    assert_type(pool.snapshot(), PoolSnapshot)
    assert_type(current_lease(), Lease)


async def typed() -> None:
    async def fetch() -> bytes:
        return b""

    tasks = [Task(slow_length, "a", key=1), Task(length, "b")]
    assert_type(tasks, list[Task[int]])
    pool = HierarchicalTaskPoolRunner(tasks, 2, ordered=True)
    assert_type(await pool.run(), list[int])
    async with pool.run_tasks() as progress:
        async for envelope in progress:
            assert_type(envelope, TaskProgressEnvelope[int])
    assert_type(await HierarchicalTaskPoolRunner([fetch], CapacitySource(2)).run(), list[bytes])


async def elsewhere(other: Executor) -> None:
    for executor in (other, LoopExecutor(), ThreadExecutor(), None):
        nothing: list[Task] = []
        pool = HierarchicalTaskPoolRunner(nothing, CapacitySource(2), executor=executor)
        assert_type(await pool.run(), list[Any])
    doubled = SourceIterObj(["a"]).map_pool(length, CapacitySource(1), executor=other)
    assert_type(await doubled.collect(), list[int])


async def mapped() -> None:
    words = SourceIterObj(["a", "b"])
    capacity = CapacitySource(2)
    assert_type(words.map_pool(slow_length, capacity), PullMapPoolObj[int])
    assert_type(words.map_pool(length, capacity, thread=True, cost=len), PullMapPoolObj[int])
    assert_type(PullMapPoolObj(["a"], slow_length, capacity, ordered=True), PullMapPoolObj[int])
    assert_type(await words.map_pool(slow_length, capacity).collect(), list[int])
    assert_type(words.map_pool(slow_length, 2).enumerate(), PullReduceObj[int, tuple[int, int]])


def wrong() -> None:
    capacity = CapacitySource(2)
    words = SourceIterObj(["a"])
    words.map_pool(slow_length, capacity, speed=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    words.map_pool(ord, "2")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    HierarchicalTaskPoolRunner([], capacity, on_error="no")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def judge(error: Exception) -> Verdict | Literal["permanent"]:
    return "permanent" if isinstance(error, ValueError) else classify(error)


def failures(error: Exception) -> None:
    verdict = classify(error)
    assert_type(verdict, Verdict)
    assert_type(verdict.kind, Literal["throttled", "transient", "permanent", "fatal"])
    assert_type(verdict.delay, float | None)
    assert_type(verdict.reason, str)
    retry = Retry(3, classify=judge)
    Retry(classify=classify)
    Retry(classify=lambda _: "fatal")
    Retry(classify=lambda _: "never")  # type: ignore[arg-type,return-value]  # pyright: ignore[reportArgumentType, reportReturnType]
    assert_type(retry.verdict(error), Verdict)
    assert_type(retry.applies(error, 1, verdict=verdict), bool)
    assert_type(retry.delay(error, 1), float)


class HookedClient:
    event_hooks: dict[str, list[Callable[..., Any]]]


def observed(client: HookedClient) -> None:
    assert_type(observe(client), HookedClient)
