"""The `repr` of every object: one short line, in any state, from any thread."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import pytest

import headrace
import headrace.queue
from headrace import (
    CapacitySource,
    Lease,
    PushChain,
    PushMapObj,
    PushObj,
    PushPullBufferObj,
    PushPullObj,
    SourceLinesObj,
    Task,
)
from headrace.testing import ScriptedSource
from headrace.testing.executors import CASES
from tests.repr_rows import PLAIN, ROWS, capacity, parse, sink, source
from tests.support import EXPORTED, until

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LENGTH = 200
"""Maximum length of a repr, in characters."""


rows = pytest.mark.parametrize(
    ("make", "expected"), [pytest.param(*row, id=name) for name, row in ROWS.items()]
)


def in_other_thread(function: Callable[[], str]) -> str:
    """Return the result of a function that is called in another thread."""
    text: list[str] = []
    thread = threading.Thread(target=lambda: text.append(function()))
    thread.start()
    thread.join()
    return text[0]


def dispose(obj: object) -> None:
    """Release a lease and close an awaitable, which would emit a warning otherwise."""
    if isinstance(obj, Lease):
        obj.release()
    elif isinstance(obj, Coroutine):
        obj.close()


@rows
def test_repr_names_type_and_state(make: Callable[[], Any], expected: str) -> None:
    obj = make()
    assert repr(obj) == expected
    assert in_other_thread(lambda: repr(obj)) == expected
    assert len(expected) <= MAX_LENGTH
    dispose(obj)


@rows
def test_repr_of_partly_constructed_object(make: Callable[[], Any], expected: str) -> None:
    obj = make()
    kind: Any = type(obj)
    dispose(obj)
    # A dataclass is complete as soon as it is visible.
    if not kind.__module__.startswith("headrace") or dataclasses.is_dataclass(kind):
        pytest.skip("it is never partly constructed")
    try:
        partial = kind.__new__(kind)
    except (TypeError, ValueError):
        pytest.skip("it is never partly constructed")
    text = repr(partial)
    assert kind.__name__ in text or text.split(":")[0] == expected.split(":", maxsplit=1)[0]
    assert "\n" not in text
    assert len(text) <= MAX_LENGTH


async def end(obj: Any) -> None:
    for name in ("aclose", "return_", "close", "release", "stop"):
        if (method := getattr(obj, name, None)) is not None:
            if inspect.isawaitable(ended := method()):
                await ended
            return


@rows
async def test_repr_of_ended_object(
    make: Callable[[], Any], expected: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    obj = make()
    await end(obj)
    text = repr(obj)
    assert "\n" not in text
    assert len(text) <= MAX_LENGTH
    if "open>" in expected and not isinstance(obj, PushPullBufferObj):
        assert text.endswith(("closed>", "ended>", "stopped>")), text
    assert in_other_thread(lambda: repr(obj)) == text


def test_every_exported_class_has_a_row() -> None:
    exported = {
        name
        for name in EXPORTED
        if isinstance(thing := getattr(headrace, name), type)
        and not issubclass(thing, BaseException)
    }
    assert exported - ROWS.keys() - PLAIN == set()


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])
def test_repr_of_queue_is_like_that_of_asyncio(kind: str) -> None:
    queue = getattr(headrace.queue, kind)(3)
    queue.put_nowait(1)
    text = f"<{kind} at {id(queue):#x} maxsize=3 size=1 tasks=1>"
    assert repr(queue) == text
    assert in_other_thread(lambda: repr(queue)) == text


def test_repr_of_10_000_stages_is_short() -> None:
    stream = source()
    pipeline: PushObj[Any] = sink()
    pair: Any = PushPullObj(sink(), source())
    chain: PushChain[Any, Any] = PushChain.start()
    for _ in range(10_000):
        stream = stream.filter(parse)
        pipeline = PushMapObj(pipeline, parse)
        pair = PushPullObj(pair, source())
        chain = chain.filter(parse)
    assert repr(stream) == "<PullFilterObj: calls parse, open>"
    assert repr(pipeline) == "<PushMapObj: calls parse, open>"
    assert repr(pair) == "<PushPullObj: into PushPullObj, out of SourceIterObj>"
    four = " | ".join(["PushFilterObj"] * 4)
    assert repr(chain) == f"<PushChain of 10000: {four} | ...>"


def test_foreign_repr_cannot_break_ours() -> None:
    class Bad:
        __name__ = "two\nlines " + "x" * 1000

        def __call__(self, item: Any) -> Any:
            return item

        def __repr__(self) -> str:
            raise RuntimeError("no")

        def __hash__(self) -> int:
            return 1

    for obj in (source().map(Bad()), Task(Bad(), 1, key=Bad()), SourceLinesObj("x" * 1000)):
        assert "\n" not in repr(obj)
        assert len(repr(obj)) <= MAX_LENGTH
    assert "<Bad>" in repr(Task(parse, 1, key=Bad()))


async def test_repr_of_buffer_shows_items_and_waiters() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(2)
    await buffer.sink.next(1)
    await buffer.sink.next(2)
    push = asyncio.ensure_future(buffer.sink.next(3))
    await until(lambda: "push," in repr(buffer))
    assert repr(buffer) == "<PushPullBufferObj: 2 of 2 items, 1 waiting to push, open>"
    assert [await anext(buffer.source) for _ in range(3)] == [1, 2, 3]
    await push
    pull = asyncio.ensure_future(anext(buffer.source))
    await until(lambda: "pull," in repr(buffer))
    assert "1 waiting to pull" in repr(buffer.source)
    await buffer.sink.return_()
    with pytest.raises(StopAsyncIteration):
        await pull
    assert repr(buffer) == "<PushPullBufferObj: 0 of 2 items, ended>"


async def test_repr_of_pull_shows_its_state() -> None:
    go = asyncio.Event()

    async def wait(item: int) -> int:
        await go.wait()
        return item

    stream = source().map(wait)
    pull: Any = anext(stream)
    assert repr(pull) == "<Pull: not begun>"
    task = asyncio.ensure_future(pull)
    await until(lambda: repr(pull) != "<Pull: not begun>")
    assert repr(pull) == "<Pull: pending>"
    assert repr(stream) == "<PullMapObj: calls wait, being pulled>"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert repr(pull) == "<Pull: done>"
    assert repr(stream) == "<PullMapObj: calls wait, 1 kept, open>"
    go.set()
    assert await stream.collect() == [1, 2, 3]
    assert repr(stream) == "<PullMapObj: calls wait, ended>"


async def test_repr_of_capacity_shows_held_and_waiting() -> None:
    limit = capacity()
    with await limit.acquire(2):
        waiter = asyncio.ensure_future(limit.acquire(2))
        await until(lambda: limit.waiting)
        assert repr(limit) == "<CapacitySource 'fetches': 2 of 3 slots, 1 waiting, open>"
        limit.pause()
        assert repr(limit) == "<CapacitySource 'fetches': 2 of 3 slots, 1 waiting, paused>"
        limit.resume()
    with await waiter as lease:
        pass
    assert repr(lease) == "<Lease, released>"
    child = CapacitySource(2, limit, floor=1, name="child")
    assert repr(child) == "<CapacitySource 'child': 0 of 2 slots, floor 1, open>"
    many = CapacitySource({f"r{number}": 1 for number in range(100)})
    assert repr(many) == (
        "<CapacitySource: 0 of 1 r0, 0 of 1 r1, 0 of 1 r2, 0 of 1 r3, 96 more resources, open>"
    )


def test_repr_of_scripted_source() -> None:
    assert "ScriptedSource" in repr(ScriptedSource([1]))


def test_case_is_shown_by_its_name() -> None:
    assert (str(CASES[0]), repr(CASES[0])) == (
        "result_follows_the_call",
        "<Case result_follows_the_call>",
    )
