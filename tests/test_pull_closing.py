"""Law 4 for concurrent closings of one stream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AsyncIteratorCombiner,
    ClosedError,
    PullGateObj,
    PullObj,
    PullPushBridgeObj,
    PullRaceObj,
    PullZipObj,
    SinkNullObj,
    SourceCancelledError,
    SourceIterObj,
    WaitObject,
)
from tests.support import step_into, until, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator


class Slow:
    """A source that closes slowly, and logs its steps."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.errors: list[BaseException] = []
        self.before_closed: Callable[[], Any] | None = None

    async def items(self) -> AsyncIterator[int]:
        try:
            while True:
                await asyncio.sleep(0)
                yield 1
        finally:
            self.log.append("closing")
            await yield_to_loop(5)
            if self.before_closed is not None:
                await self.before_closed()
            self.log.append("closed")
            for error in self.errors:
                raise error

    async def close(self, stream: Any) -> None:
        """Close a stream, and log the return."""
        try:
            await stream.aclose()
        finally:
            self.log.append("done")


def gate(items: Any) -> PullObj[Any]:
    signal: WaitObject[None] = WaitObject()
    signal.resolve(None)
    return PullGateObj(items, signal)


STREAMS = {
    "source": SourceIterObj,
    "pipeline": lambda items: SourceIterObj(items).map(str).filter(bool),
    "concurrent": lambda items: SourceIterObj(items).map(str, concurrency=2),
    "prefetch": lambda items: SourceIterObj(items).prefetch(2),
    "timeout": lambda items: SourceIterObj(items).timeout(60),
    "branch": lambda items: SourceIterObj(items).tee(1)[0],
    "gate": gate,
    "bridge": lambda items: PullPushBridgeObj(SourceIterObj(items), SinkNullObj()),
    "merge": PullRaceObj,
    "zip": PullZipObj,
    "merge of merges": lambda items: PullRaceObj(PullRaceObj(items).map(str)).map(str),
}
every_stream = pytest.mark.parametrize("make", [pytest.param(m, id=n) for n, m in STREAMS.items()])


@every_stream
@pytest.mark.parametrize("pulls", [0, 1])
async def test_law_4_each_closing_waits_until_it_is_done(
    make: Callable[[Any], PullObj[Any]], pulls: int
) -> None:
    slow = Slow()
    items = slow.items()
    await anext(items)
    stream = make(items)
    for _ in range(pulls):
        await anext(stream)
    first = asyncio.create_task(slow.close(stream))
    await until(lambda: slow.log == ["closing"])
    await asyncio.gather(first, slow.close(stream), slow.close(stream))
    assert slow.log == ["closing", "closed", "done", "done", "done"]


async def test_law_4_closing_a_combiner_twice_waits_for_both() -> None:
    slow = Slow()
    combiner = AsyncIteratorCombiner(slow.items(), slow.items())
    await combiner.race()
    await asyncio.gather(slow.close(combiner), slow.close(combiner))
    assert slow.log == ["closing", "closing", "closed", "closed", "done", "done"]


@every_stream
async def test_law_4_cancelled_second_closing_waits_too(
    make: Callable[[Any], PullObj[Any]],
) -> None:
    slow = Slow()
    stream = make(slow.items())
    await anext(stream)
    first = asyncio.create_task(slow.close(stream))
    await until(lambda: slow.log == ["closing"])
    second = asyncio.create_task(slow.close(stream))
    await yield_to_loop(2)
    second.cancel()
    await asyncio.wait([first, second])
    assert slow.log == ["closing", "closed", "done", "done"]
    assert second.cancelled()
    assert first.exception() is None


@every_stream
async def test_law_4_error_is_raised_by_one_closing_only(
    make: Callable[[Any], PullObj[Any]],
) -> None:
    slow = Slow()
    slow.errors.append(OSError("disk"))
    stream = make(slow.items())
    await anext(stream)
    outcomes = await asyncio.gather(slow.close(stream), slow.close(stream), return_exceptions=True)
    assert slow.log == ["closing", "closed", "done", "done"]
    assert sorted(map(str, outcomes)) == ["None", "disk"]


@every_stream
async def test_law_4_closing_in_a_clean_up_does_not_hang(
    make: Callable[[Any], PullObj[Any]],
) -> None:
    slow = Slow()
    stream = make(slow.items())

    async def close_too() -> None:
        # Streams with tasks refuse this, as they do during a pull. The others return at once.
        with contextlib.suppress(RuntimeError):
            await stream.aclose()

    slow.before_closed = close_too
    await anext(stream)
    await slow.close(stream)
    assert slow.log == ["closing", "closed", "done"]


async def test_restart_during_closing_is_refused() -> None:
    slow = Slow()
    stream = SourceIterObj(slow.items()).map(str)
    await anext(stream)
    closing = asyncio.create_task(slow.close(stream))
    await until(lambda: slow.log == ["closing"])
    with pytest.raises(RuntimeError, match="being closed"):
        stream.restart()
    await closing


def test_law_15_closing_left_in_a_closed_loop_is_ignored() -> None:
    slow = Slow()
    stream = SourceIterObj(slow.items()).map(str)

    async def leave() -> asyncio.Task[None]:
        await anext(stream)
        slow.before_closed = asyncio.Event().wait
        closing = asyncio.create_task(slow.close(stream))
        await until(lambda: slow.log == ["closing"])
        return closing

    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(leave())
    loop.close()
    asyncio.run(slow.close(stream))
    assert slow.log == ["closing", "done"]
    assert not left.done()


async def test_law_15_loop_may_close_during_a_foreign_closing() -> None:
    class ClosingLoop:
        """A loop that closes between `is_closed()` and a call from another thread."""

        left = False

        def is_closed(self) -> bool:
            return self.left

        def call_soon_threadsafe(self, *_: Any) -> None:
            self.left = True
            raise RuntimeError("Event loop is closed")

    class Awaited:
        """An awaitable of that loop."""

        def get_loop(self) -> ClosingLoop:
            return loop

        def cancel(self) -> None:
            pytest.fail("it belongs to another thread")

        def __await__(self) -> Iterator[Any]:
            yield self

    loop = ClosingLoop()
    awaited = Awaited()
    stream: Any = SourceIterObj([1]).map(lambda _: awaited)
    pull = anext(stream)
    assert pull.send(None) is awaited
    closing = asyncio.ensure_future(stream.aclose())
    await yield_to_loop(1)
    assert loop.left
    assert not closing.done(), "the pull has not ended"
    with pytest.raises(ClosedError):
        pull.close()
    await closing


def _slow_clean_up(log: list[str]) -> Any:
    async def items() -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.sleep(0)
            yield 1
        finally:
            log.append("closing")
            await yield_to_loop(3)
            log.append("closed")

    return items()


@pytest.mark.parametrize("make", [SourceIterObj, lambda items: SourceIterObj(items).map(str)])
async def test_manually_closed_pull_leaves_the_queue(
    make: Callable[[Any], PullObj[Any]],
) -> None:
    log: list[str] = []
    source = _slow_clean_up(log)
    stream = make(source)
    await anext(stream)
    pull: Any = anext(stream)
    step_into(source, pull)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        pull.close()
    assert log == ["closing"]
    # The pull is still referenced. The next one in the queue is served, and raises the loss of the item.
    with pytest.raises(SourceCancelledError):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    pull.close()
    await stream.aclose()


async def test_manually_closed_collect_returns_its_items() -> None:
    log: list[str] = []
    source = _slow_clean_up(log)
    stream = SourceIterObj(source)
    collecting: Any = stream.collect()
    step_into(source, collecting)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        collecting.close()
    assert await anext(stream) == 0
    with pytest.raises(SourceCancelledError):
        await anext(stream)


async def test_law_4_pull_may_end_within_its_cancellation() -> None:
    class SelfResuming:
        """An awaitable that resumes its pull within `cancel()`. A future does so in the next iteration."""

        pull: Any = None

        def __await__(self) -> Generator[SelfResuming, None, None]:
            yield self

        def cancel(self) -> None:
            with pytest.raises(ClosedError):
                self.pull.throw(asyncio.CancelledError())

    own = SelfResuming()

    async def wait(_: int) -> None:
        await own

    stream = SourceIterObj([1]).map(wait)
    own.pull = anext(stream)
    while own.pull.send(None) is not own:
        """It yielded to the event loop."""
    async with asyncio.timeout(5):
        await stream.aclose()
