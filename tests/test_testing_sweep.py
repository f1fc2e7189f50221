"""The tools of `headrace.testing` that try a stream everywhere: they must notice what is broken."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullObj, PullObj1To1Link, PushPullBufferObj, SourceIterObj, SourceObj
from headrace.testing import (
    Delay,
    Forever,
    Raise,
    RecordingSink,
    ScriptedSource,
    SweepError,
    Turns,
    sweep,
    sweep_endings,
)
from tests.support import collect, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

TRIES = 5
SCRIPT = [1, Turns(2), 2, Turns(1), 3]


class Careless(SourceObj[Any]):
    """Takes an item, and then waits with it in its hands."""

    def __init__(self, *, repeats: bool = False) -> None:
        super().__init__()
        self.items = [1, 2, 3]
        self.repeats = repeats

    async def __anext__(self) -> Any:
        if not self.items:
            raise StopAsyncIteration
        if self.repeats:
            item = self.items[0]
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.items.insert(0, item)
                raise
            return self.items.pop(0)
        item = self.items.pop(0)
        await asyncio.sleep(0)
        return item


class Delivered:
    """Waits for an item that a thread brings as soon as somebody waits."""

    def __init__(self) -> None:
        self.buffer = PushPullBufferObj[int]()

    def bring(self) -> None:
        thread = threading.Thread(target=self.buffer.sink.next_nowait, args=(1,))
        thread.start()
        thread.join()

    def __await__(self) -> Generator[Any, Any, int]:
        pull: Any = anext(self.buffer.source)
        step, sent = pull.send, None
        while True:
            try:
                awaited = step(sent)
            except StopIteration as done:
                item: int = done.value
                return item
            if awaited is not None:
                self.bring()
            try:
                sent = yield awaited
                step = pull.send
            except BaseException as error:
                step, sent = pull.throw, error


class ByThread(PullObj[int]):
    """Gives what threads bring."""

    async def pull_impl(self) -> AsyncIterator[int]:
        for _ in range(2):
            yield await Delivered()


class Littering(PullObj1To1Link[Any, Any]):
    """Leaves tasks behind."""

    def __aiter__(self) -> Littering:
        return self

    async def __anext__(self) -> Any:
        self.task = asyncio.create_task(turns(50))
        return await anext(self.source)


class Forgetful(PullObj1To1Link[Any, Any]):
    """Does not close its source."""

    closed = False

    def __aiter__(self) -> Forgetful:
        return self

    async def __anext__(self) -> Any:
        if self.closed:
            raise StopAsyncIteration
        return await anext(self.source)

    async def aclose(self) -> None:
        self.closed = True


async def test_a_script_is_played_step_by_step() -> None:
    source = ScriptedSource([1, Turns(3), 2, Raise(OSError("disk")), 3])
    stream = aiter(source)
    assert await anext(stream) == 1
    pull = asyncio.ensure_future(anext(stream))
    await turns(2)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert await anext(stream) == 2
    with pytest.raises(OSError, match="disk"):
        await anext(stream)
    assert await collect(stream) == [3]
    assert (source.opens, source.pulls, source.ends, source.closes) == (1, 6, 1, 0)
    assert len(source.pulled_by) == 2


@pytest.mark.virtual
async def test_a_delay_ends_when_it_would_have_ended() -> None:
    stream = aiter(ScriptedSource([Delay(1.0), "late", Forever()]))
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.3)
    assert await anext(stream) == "late"
    assert asyncio.get_running_loop().time() == 1.0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 100)


async def test_a_recording_sink_tells_what_was_offered_from_what_was_accepted() -> None:
    sink: RecordingSink[int] = RecordingSink(turns=3)
    await sink.next(1)
    push = asyncio.ensure_future(sink.next(2))
    await turns(2)
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    await sink.return_("end")
    await sink.return_("again")
    assert (sink.offered, sink.items, sink.returned, sink.thrown) == ([1, 2], [1], ["end"], [])


async def test_a_sweep_tries_every_suspension() -> None:
    # Three in the run; and, of the first tries of items, two: the first and the second suspension. A busy machine may
    # add a turn of the loop.
    assert await sweep(lambda: aiter(ScriptedSource(SCRIPT)), [1, 2, 3], ways=["cancel"]) >= 5
    # It never waits. Only if the machine is busy elsewhere for so long it lets the loop have a turn.
    assert 0 in [await sweep(lambda: SourceIterObj([1, 2]), [1, 2]) for _ in range(TRIES)]


@pytest.mark.parametrize("way", ["cancel", "late", "twice", "timeout", "drop"])
async def test_a_sweep_notices_what_is_lost_in_each_way(way: Any) -> None:
    with pytest.raises(SweepError, match=rf'"{way}" at suspension 1 of the run.*got \[1, 3\]'):
        await sweep(Careless, [1, 2, 3], ways=[way])


async def test_a_sweep_notices_what_is_repeated() -> None:
    with pytest.raises(SweepError, match=r"got \[1, 1, 2, 3\]"):
        await sweep(lambda: Careless(repeats=True), [1, 2, 3], ways=["cancel"])


async def test_a_sweep_notices_what_is_wrong_without_it() -> None:
    with pytest.raises(SweepError, match=r"left alone: expected \[2\], got \[1\]"):
        await sweep(lambda: SourceIterObj([1]), [2])
    await sweep(lambda: SourceIterObj([[1], [2]]), [[2], [1]], ordered=False)
    with pytest.raises(SweepError, match="left alone"):
        await sweep(lambda: SourceIterObj([1, 1]), [1, 2], ordered=False)


async def test_a_sweep_notices_a_clean_end_that_hides_a_loss() -> None:
    async def generator() -> AsyncIterator[int]:
        for step in range(3):
            await asyncio.sleep(0)
            yield step

    # Iterated by hand, it just ends.
    with pytest.raises(SweepError, match=r"expected \[0, 1, 2\], got \[0\]"):
        await sweep(generator, [0, 1, 2], ways=["cancel"], excused_by=OSError)


@pytest.mark.virtual
async def test_a_sweep_notices_what_hangs() -> None:
    with pytest.raises(SweepError, match=r"left alone: hung for 5.0 s"):
        await sweep(lambda: aiter(ScriptedSource([Forever()])), [], timeout=5.0)


async def test_a_sweep_notices_tasks_and_sources_that_are_left() -> None:
    with pytest.raises(SweepError, match="left running"):
        await sweep(lambda: Littering([1]), [1])
    with pytest.raises(SweepError, match="left running"):
        await sweep_endings(lambda: Littering([1]))
    await turns(60)
    with pytest.raises(SweepError, match=r'"break" at item 1: a source was left open: <ScriptedS'):
        await sweep_endings(lambda: Forgetful(ScriptedSource([1])), endings=["break"])


async def test_a_sweep_of_endings_passes_what_is_whole() -> None:
    assert (
        await sweep_endings(lambda: SourceIterObj(ScriptedSource(SCRIPT, closing=1)).map(str)) > 10
    )


@pytest.mark.loops("asyncio", "uvloop")
async def test_law_4_what_a_thread_brought_before_the_closing_began_is_no_fault() -> None:
    assert await sweep_endings(ByThread, endings=["close"]) > 2
