"""Awaitables of headrace: the coroutine protocol, both type slots and the guards."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import gc
import inspect
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    ClosedError,
    ForkError,
    HierarchicalTaskPoolRunner,
    PullRaceObj,
    PullRoundRobinObj,
    PushPullBufferObj,
    SourceIterObj,
    Task,
    WaitObject,
    WrongLoopError,
)
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from headrace import PullObj


def test_awaitable_is_a_coroutine() -> None:
    pull = anext(SourceIterObj([1]))
    assert isinstance(pull, collections.abc.Coroutine)
    assert inspect.isawaitable(pull)
    assert asyncio.iscoroutine(pull)
    awaited: object = pull.__await__()
    assert awaited is pull
    pull.close()


async def test_task_repr_names_the_operation() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    task = asyncio.ensure_future(anext(buffer.source))
    assert "Pull" in repr(task)
    assert "without" not in repr(task)
    buffer.sink.next_nowait(1)
    assert await task == 1


def test_send_throw_and_close_by_hand() -> None:
    stream = SourceIterObj([1, 2])
    with pytest.raises(StopIteration) as stop:
        anext(stream).send(None)
    assert stop.value.value == 1
    done = anext(stream)
    with pytest.raises(KeyError, match="mine"):
        done.throw(KeyError("mine"))
    with pytest.raises(RuntimeError, match="already awaited"):
        done.send(None)
    closed = anext(stream)
    closed.close()
    closed.close()
    with pytest.raises(RuntimeError, match="already awaited"):
        closed.send(None)
    with pytest.raises(StopIteration) as stop:
        anext(stream).send(None)
    assert stop.value.value == 2


@pytest.mark.parametrize("form", ["instance", "type", "pair", "triple"])
def test_throw_takes_one_to_three_arguments(form: str) -> None:
    error = ValueError("v")
    arguments: tuple[Any, ...] = {
        "instance": (error,),
        "type": (ValueError,),
        "pair": (ValueError, error),
        "triple": (ValueError, error, None),
    }[form]
    with pytest.raises(ValueError) as caught:
        anext(SourceIterObj([1])).throw(*arguments)
    assert form == "type" or caught.value is error


def test_kept_stop_iteration_keeps_its_value() -> None:
    stream = SourceIterObj(["first", "second"])
    with pytest.raises(StopIteration) as first:
        anext(stream).send(None)
    kept = first.value
    with pytest.raises(StopIteration) as stop:
        anext(stream).send(None)
    assert (kept.value, stop.value.value) == ("first", "second")
    assert kept is not stop.value


async def test_item_is_freed_with_the_consumers_reference() -> None:
    class Item:
        pass

    async for item in SourceIterObj(Item() for _ in range(3)):
        reference = weakref.ref(item)
        del item
        assert reference() is None


@pytest.mark.loops("asyncio")
async def test_items_are_delivered_under_tracing() -> None:
    seen: list[StopIteration] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "exception" and isinstance(argument[1], StopIteration):
            seen.append(argument[1])
        return trace

    async def drain() -> list[int]:
        return [n async for n in SourceIterObj(range(50)).map(lambda n: n + 1)]

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        items = await drain()
    finally:
        sys.settrace(old)
    assert items == list(range(1, 51))
    kept = [error.value for error in seen if isinstance(error.value, int)]
    assert len(set(kept)) == len(kept)


async def test_many_pulls_leak_no_objects() -> None:
    async def drain(count: int) -> None:
        async for _ in SourceIterObj(range(count)).map(lambda n: n):
            pass

    await drain(1000)
    gc.collect()
    before, none = len(gc.get_objects()), sys.getrefcount(None)
    await drain(100_000)
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert abs(sys.getrefcount(None) - none) < 1000


async def test_pending_awaitables_leak_no_objects() -> None:
    async def round_trip() -> None:
        buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
        signal: WaitObject[int] = WaitObject()
        capacity = CapacitySource(1)
        lease = await capacity.acquire()
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(anext(buffer.source)),
            asyncio.ensure_future(signal.wait()),
            asyncio.ensure_future(capacity.acquire()),
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        lease.release()
        await buffer.sink.next(1)
        done = await asyncio.gather(*tasks, return_exceptions=True)
        granted: Any = done[2]
        granted.release()

    for _ in range(20):
        await round_trip()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        await round_trip()
    gc.collect()
    assert len(gc.get_objects()) - before < 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_law_15_use_after_fork_names_both_processes() -> None:
    stream = SourceIterObj([1, 2])
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    signal: WaitObject[int] = WaitObject()
    capacity = CapacitySource(1)
    uses: list[Callable[[], object]] = [
        lambda: anext(stream).send(None),
        lambda: buffer.sink.next_nowait(1),
        lambda: anext(buffer.source).send(None),
        lambda: signal.resolve(1),
        lambda: signal.wait().send(None),
        capacity.acquire_nowait,
    ]
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        outcome = []
        for use in uses:
            try:
                use()
                outcome.append("went through")
            except ForkError as error:
                named = str(parent) in str(error) and str(os.getpid()) in str(error)
                outcome.append("refused" if named else str(error))
            except BaseException as error:
                outcome.append(repr(error))
        os.write(writer, ";".join(outcome).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        report = pipe.read()
    os.waitpid(child, 0)
    assert report == ";".join(["refused"] * len(uses))
    # The parent's buffer still works.
    buffer.sink.next_nowait(1)


def test_law_15_waiter_of_a_closed_loop_takes_no_item() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    loop = asyncio.new_event_loop()
    waiting: list[asyncio.Future[int]] = []

    async def begin() -> None:
        waiting.append(asyncio.ensure_future(anext(buffer.source)))
        await asyncio.sleep(0)

    loop.run_until_complete(begin())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    buffer.sink.next_nowait(7)
    buffer.source.restart()

    async def take() -> int:
        return await anext(buffer.source)

    assert asyncio.run(take()) == 7


async def numbers() -> AsyncIterator[int]:
    for number in range(9):
        yield number


@pytest.mark.parametrize("make", [PullRaceObj, PullRoundRobinObj])
def test_law_15_merge_of_a_closed_loop_raises_elsewhere(
    make: Callable[..., PullObj[int]],
) -> None:
    async def pull() -> int:
        return await asyncio.wait_for(anext(streams[0]), 10)

    streams = [make(numbers(), numbers())]
    loop = asyncio.new_event_loop()
    loop.run_until_complete(pull())
    loop.close()
    with pytest.raises(WrongLoopError, match="on another event loop"):
        asyncio.run(pull())
    with pytest.warns(ResourceWarning, match="unclosed"):
        streams.clear()
        gc.collect()


async def never() -> AsyncIterator[int]:
    await asyncio.get_running_loop().create_future()
    yield 0


async def stuck(*_: object) -> None:
    await asyncio.get_running_loop().create_future()


async def twice(stream: PullObj[Any]) -> None:
    await asyncio.gather(anext(stream), anext(stream))


async def close_beside(stream: PullObj[Any]) -> None:
    async def stubborn() -> None:
        with contextlib.suppress(ClosedError, asyncio.CancelledError):
            await anext(stream)
        await asyncio.get_running_loop().create_future()

    pull = asyncio.ensure_future(stubborn())
    await asyncio.sleep(0)
    await asyncio.gather(stream.aclose(), pull)


WAITS: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
    "a buffer": lambda: anext(PushPullBufferObj[int]().source),
    "a pipeline over a buffer": lambda: anext(PushPullBufferObj[int]().source.map(str)),
    "two concurrent pulls": lambda: twice(PushPullBufferObj[int]().source.map(str)),
    "a source": lambda: anext(SourceIterObj(never())),
    "a merge": lambda: anext(PullRaceObj(never(), [])),
    "close beside a pull": lambda: close_beside(SourceIterObj(never())),
    "concurrent calls": lambda: anext(SourceIterObj([1]).map(stuck, concurrency=2)),
    "the source of concurrent calls": lambda: anext(SourceIterObj(never()).map(str, concurrency=2)),
    "a background pull": lambda: anext(SourceIterObj(never()).timeout(3600)),
    "a task of a pool": lambda: HierarchicalTaskPoolRunner([stuck], CapacitySource(1)).run(),
    "a task of a pool with a key": lambda: HierarchicalTaskPoolRunner(
        [Task(stuck, 1, key=1)], CapacitySource(1)
    ).run(),
}


@pytest.mark.filterwarnings("ignore:unclosed")  # the merge
@pytest.mark.filterwarnings("ignore:a lease was collected")  # the lease of the pool's task
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_law_5_closed_loop_frees_its_waiting_tasks(
    wait: Callable[[], Coroutine[Any, Any, Any]], kind: str
) -> None:
    """Close a loop without cancelling its tasks; no other loop is started afterwards."""
    kinds = asyncio if kind == "asyncio" else pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = kinds.new_event_loop()
    loop.set_exception_handler(lambda *_: None)

    async def begin() -> weakref.ref[Any]:
        task = asyncio.ensure_future(wait())
        await yield_to_loop(10)
        assert not task.done()
        return weakref.ref(task)

    task = loop.run_until_complete(begin())
    loop_ref = weakref.ref(loop)
    assert task() is not None
    loop.close()
    del loop
    gc.collect()
    gc.collect()
    assert (loop_ref(), task()) == (None, None)


def test_law_15_waiting_at_process_exit_is_silent() -> None:
    program = """
import asyncio
from headrace import SourceIterObj
from tests.test_awaitable import WAITS, never, yield_to_loop

def tasks():
    return anext(SourceIterObj(never()).map(str, concurrency=2))

loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda *_: None)

async def begin():
    return [asyncio.ensure_future(wait()) for wait in [tasks, *WAITS.values()]], await yield_to_loop(10)

begun = loop.run_until_complete(begin())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "panicked" not in done.stderr


async def test_gc_tracks_only_waiting_awaitables() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    kind = type(anext(buffer.source))

    def seen() -> int:
        return sum(type(tracked) is kind for tracked in gc.get_objects())

    def waiting() -> Any:
        pull = anext(buffer.source)
        pull.send(None)
        # The first step yields to the event loop once; the second one queues the pull.
        pull.send(None)
        return pull

    gc.collect()
    before = seen()
    for _ in range(3):
        # More objects than the free list keeps.
        held = [waiting() for _ in range(100)]
        assert seen() == before + 100
        for _ in range(50):
            held.pop().close()
        # Some are finished, others are dropped while they wait.
        del held
        assert seen() == before
