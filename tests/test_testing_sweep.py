"""The tools of `headrace.testing` that interrupt a stream everywhere: they detect broken streams."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullObj, PullObj1To1Link, PushPullBufferObj, SourceIterObj, SourceObj
from headrace.testing import (
    AtTime,
    Delay,
    Forever,
    Raise,
    RecordingSink,
    ScriptedSource,
    Step,
    SweepError,
    Yields,
    cancel_everywhere,
    sweep,
    sweep_endings,
)
from tests.support import collect, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

ATTEMPTS = 5
SCRIPT = [1, Yields(2), 2, Yields(1), 3]


class Losing(SourceObj[Any]):
    """Takes an item and then waits while holding it."""

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
    """Waits for an item that a thread pushes as soon as the wait begins."""

    def __init__(self) -> None:
        self.buffer = PushPullBufferObj[int]()

    def push(self) -> None:
        thread = threading.Thread(target=self.buffer.sink.next_nowait, args=(1,))
        thread.start()
        thread.join()

    def __await__(self) -> Generator[Any, Any, int]:
        pull: Any = anext(self.buffer.source)
        step, sent = pull.send, None
        while True:
            try:
                awaited = step(sent)
            except StopIteration as stop:
                item: int = stop.value
                return item
            if awaited is not None:
                self.push()
            try:
                sent = yield awaited
                step = pull.send
            except BaseException as error:
                step, sent = pull.throw, error


class FromThreads(PullObj[int]):
    """Yields items that threads push."""

    async def pull_impl(self) -> AsyncIterator[int]:
        for _ in range(2):
            yield await Delivered()


class Littering(PullObj1To1Link[Any, Any]):
    """Leaves tasks behind."""

    def __aiter__(self) -> Littering:
        return self

    async def __anext__(self) -> Any:
        self.task = asyncio.create_task(yield_to_loop(50))
        return await anext(self.source)


class Unclosing(PullObj1To1Link[Any, Any]):
    """Does not close its source."""

    closed = False

    def __aiter__(self) -> Unclosing:
        return self

    async def __anext__(self) -> Any:
        if self.closed:
            raise StopAsyncIteration
        return await anext(self.source)

    async def aclose(self) -> None:
        self.closed = True


async def test_script_is_played_step_by_step() -> None:
    source = ScriptedSource([1, Yields(3), 2, Raise(OSError("disk")), 3])
    stream = aiter(source)
    assert await anext(stream) == 1
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(2)
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
async def test_cancelled_delay_keeps_its_deadline() -> None:
    stream = aiter(ScriptedSource([Delay(1.0), "late", Forever()]))
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.3)
    assert await anext(stream) == "late"
    assert asyncio.get_running_loop().time() == 1.0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 100)


async def test_recording_sink_tracks_offered_and_accepted() -> None:
    sink: RecordingSink[int] = RecordingSink(iterations=3)
    await sink.next(1)
    push = asyncio.ensure_future(sink.next(2))
    await yield_to_loop(2)
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    await sink.return_("end")
    await sink.return_("again")
    assert (sink.offered, sink.items, sink.returned, sink.thrown) == ([1, 2], [1], ["end"], [])


async def test_sweep_tries_every_suspension() -> None:
    # Three suspensions in the whole run, and the first two of the first pulls. A slow machine may
    # # add an event-loop iteration.
    assert (
        await sweep(lambda: aiter(ScriptedSource(SCRIPT)), [1, 2, 3], interruptions=["cancel"]) >= 5
    )
    # The stream never waits. Only on a slow machine does it yield to the event loop.
    assert 0 in [await sweep(lambda: SourceIterObj([1, 2]), [1, 2]) for _ in range(ATTEMPTS)]


@pytest.mark.parametrize("interruption", ["cancel", "late", "twice", "timeout", "drop"])
async def test_sweep_finds_loss_by_each_interruption(interruption: Any) -> None:
    with pytest.raises(
        SweepError, match=rf'"{interruption}" at suspension 1 of the run.*got \[1, 3\]'
    ):
        await sweep(Losing, [1, 2, 3], interruptions=[interruption])


async def test_sweep_finds_repeated_items() -> None:
    with pytest.raises(SweepError, match=r"got \[1, 1, 2, 3\]"):
        await sweep(lambda: Losing(repeats=True), [1, 2, 3], interruptions=["cancel"])


async def test_sweep_finds_errors_without_interruption() -> None:
    with pytest.raises(SweepError, match=r"without an interruption: expected \[2\], got \[1\]"):
        await sweep(lambda: SourceIterObj([1]), [2])
    await sweep(lambda: SourceIterObj([[1], [2]]), [[2], [1]], ordered=False)
    with pytest.raises(SweepError, match="without an interruption"):
        await sweep(lambda: SourceIterObj([1, 1]), [1, 2], ordered=False)


async def test_sweep_finds_clean_end_that_hides_a_loss() -> None:
    async def generator() -> AsyncIterator[int]:
        for step in range(3):
            await asyncio.sleep(0)
            yield step

    # Iterated directly, the generator just ends.
    with pytest.raises(SweepError, match=r"expected \[0, 1, 2\], got \[0\]"):
        await sweep(generator, [0, 1, 2], interruptions=["cancel"], excused_by=OSError)


@pytest.mark.virtual
async def test_sweep_finds_a_hang() -> None:
    with pytest.raises(SweepError, match=r"without an interruption: hung for 5.0 s"):
        await sweep(lambda: aiter(ScriptedSource([Forever()])), [], timeout=5.0)


async def test_sweep_finds_leftover_tasks_and_open_sources() -> None:
    with pytest.raises(SweepError, match="left running"):
        await sweep(lambda: Littering([1]), [1])
    with pytest.raises(SweepError, match="left running"):
        await sweep_endings(lambda: Littering([1]))
    await yield_to_loop(60)
    with pytest.raises(SweepError, match=r'"break" at item 1: a source was left open: <ScriptedS'):
        await sweep_endings(lambda: Unclosing(ScriptedSource([1])), endings=["break"])


async def test_sweep_endings_passes_correct_stream() -> None:
    assert (
        await sweep_endings(lambda: SourceIterObj(ScriptedSource(SCRIPT, closing=1)).map(str)) > 10
    )


@pytest.mark.loops("asyncio", "uvloop")
async def test_law_4_item_pushed_before_closing_is_no_fault() -> None:
    assert await sweep_endings(FromThreads, endings=["close"]) > 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cancle"], r"must be among 'cancel', .*got \['cancle'\]"),
        ([["cancel"]], r"must be among 'cancel', .*got \[\['cancel'\]\]"),
        ([], "must have one of 'cancel', .* got none"),
        ("cancel", r"must be an iterable of some of 'cancel', .*got 'cancel' \(str\)"),
        (7, r"must be an iterable of some of 'cancel', .*got 7 \(int\)"),
    ],
)
async def test_unknown_interruption_is_refused(names: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"sweep: interruptions {message}"):
        await sweep(lambda: SourceIterObj([1]), [1], interruptions=names)
    with pytest.raises(
        (TypeError, ValueError), match=f"cancel_everywhere: interruptions {message}"
    ):
        await cancel_everywhere(wrong(len), interruptions=names)
    message = message.replace("'cancel', ", "'break', ")
    with pytest.raises((TypeError, ValueError), match=f"sweep_endings: endings {message}"):
        await sweep_endings(lambda: SourceIterObj([1]), endings=names)


async def test_non_stream_is_refused() -> None:
    async def generator() -> AsyncIterator[int]:
        yield 1

    async def coroutine() -> AsyncIterator[int]:
        return generator()

    for sweeps in (lambda build: sweep(build, [1]), sweep_endings):
        for build, message in (
            (SourceIterObj([1]), "build must be a function, .* got <SourceIterObj"),
            (coroutine, "build must make a.*, it made <coroutine"),
            (lambda: 5, r"build must make a.*, it made 5 \(int\)$"),
            (lambda: [1], r"build must make a.*, it made \[1\] \(list\); wrap it in SourceIterObj"),
        ):
            with pytest.raises(TypeError, match=message):
                await sweeps(wrong(build))
    assert await sweep(generator, [1]) == 0
    with pytest.raises(TypeError, match=r"it made <async_generator .*; wrap it in SourceIterObj"):
        await sweep_endings(wrong(generator))
    with pytest.raises(TypeError, match=r"expected must be an iterable of items, got 5 \(int\)"):
        await sweep(generator, wrong(5))
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        await sweep(generator, [1], timeout=wrong("x"))
    with pytest.raises(ValueError, match="timeout must be positive, got 0"):
        await sweep_endings(lambda: SourceIterObj([1]), timeout=0)


async def test_untried_suspensions_fail_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.testing.fault_injection.MOST", 2)

    def build() -> PullObj[Any]:
        return SourceIterObj(ScriptedSource([Yields(9), 1]))

    with pytest.raises(
        SweepError, match=r'"late" at suspension 2 of the run: not tried.* 2 places'
    ):
        await sweep(build, [1], interruptions=["late"])
    with pytest.raises(SweepError, match=r'"cancel" at suspension 2: not tried.* 2 places'):
        await sweep_endings(build, endings=["cancel"])


@pytest.mark.usefixtures("large_budget")
async def test_failed_uninterrupted_run_is_counted() -> None:
    built = 0

    def build() -> SourceIterObj[int]:
        nonlocal built
        built += 1
        return SourceIterObj([1] if built == 1 else [2])

    with pytest.raises(SweepError, match=r"^2 faults in 2 runs, which tried 0 places:\n"):
        await sweep(build, [1], interruptions=["cancel"])


def test_invalid_step_is_refused() -> None:
    for make, message in (
        (lambda: Delay(wrong("x")), r"Delay: seconds must be a number, got 'x' \(str\)"),
        (lambda: Delay(-1), "Delay: seconds must not be negative, got -1"),
        (lambda: AtTime(wrong(None)), "AtTime: seconds must be a number, got None"),
        (lambda: Yields(-1), "Yields: count must be at least 0, got -1"),
        (lambda: Yields(wrong(1.5)), "Yields: count must be an integer, got 1.5"),
        (lambda: Raise(wrong("disk")), r"Raise: error must be an exception, got 'disk' \(str\)"),
        (lambda: ScriptedSource(wrong(5)), r"script must be an iterable .* got 5 \(int\)"),
        (lambda: ScriptedSource([1, Yields]), "the class Yields where a step should be; call it"),
        (lambda: ScriptedSource([], closing=wrong("x")), "closing must be an integer, got 'x'"),
        (lambda: RecordingSink(iterations=wrong("x")), "iterations must be an integer, got 'x'"),
        (lambda: RecordingSink(iterations=-1), "iterations must be at least 0, got -1"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            make()


async def test_repr_of_script_and_sink_shows_state() -> None:
    source = ScriptedSource([1, Yields(), 2])
    stream = aiter(source)
    await anext(stream)
    assert repr(source) == "<ScriptedSource: 3 steps, opened 1, ended 0, closed 0>"
    assert repr(stream) == "<iterator of a ScriptedSource: at 1 of 3 steps, open>"
    await stream.aclose()
    assert repr(stream) == "<iterator of a ScriptedSource: at 3 of 3 steps, closed>"
    assert repr(source) == "<ScriptedSource: 3 steps, opened 1, ended 0, closed 1>"
    assert repr(Step()) == "Step()"
    sink = RecordingSink[int](iterations=2)
    push = asyncio.ensure_future(sink.next(1))
    await yield_to_loop(1)
    assert repr(sink) == "<RecordingSink: 0 items, 1 offered and not accepted, open>"
    await push
    await sink.return_()
    assert repr(sink) == "<RecordingSink: 1 item, ended>"
