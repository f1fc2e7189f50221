"""Closing and dropping sources of lines."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, ClosedError, SourceCapacityObj, SourceLinesObj
from tests.line_files import descriptors, on_linux
from tests.support import collect, eventually, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace import PullObj


def all_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - its own descriptor is closed by then


@on_linux
async def test_law_4_closing_closes_the_file(large: Path) -> None:
    for count in range(0, 60_000, 7_000):
        stream = SourceLinesObj(large).map(len)
        for _ in range(count):
            await anext(stream)
        await stream.aclose()
        assert descriptors(large) == []
        assert await collect(stream) == []
    # Close it while a thread is still opening it.
    for _ in range(50):
        stream = SourceLinesObj(large).map(len)
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stream.aclose()
        assert descriptors(large) == []


@on_linux
async def test_law_4_closing_interrupts_a_blocked_read(fifo: Path) -> None:
    before = all_descriptors()
    for with_writer in (False, True):
        stream = SourceLinesObj(fifo)
        pull = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        writer = os.open(fifo, os.O_RDWR) if with_writer else None
        if writer is not None:
            os.write(writer, b"half a line")
        await asyncio.gather(stream.aclose(), stream.aclose())
        with pytest.raises(Exception, match="was closed while this pull was pending"):
            await pull
        if writer is not None:
            os.close(writer)
        # Descriptors of asyncio itself were opened with the loop.
        assert descriptors(fifo) == []
    await eventually(lambda: all_descriptors() <= before)


@on_linux
async def test_law_4_cancelled_aclose_still_closes(large: Path) -> None:
    cancelled = 0
    for _ in range(200):
        stream = SourceLinesObj(large)
        pull = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
        closing = asyncio.ensure_future(stream.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        try:
            await closing
        except asyncio.CancelledError:
            cancelled += 1
        assert descriptors(large) == []
    print(f"{cancelled} were cancelled")


@on_linux
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: SourceCapacityObj(s, CapacitySource(1))])
@pytest.mark.parametrize("closes_first", [True, False])
def test_law_4_line_at_closing_goes_to_an_earlier_pull(
    fifo: Path, wrap: Callable[[PullObj[str]], PullObj[str]], closes_first: bool
) -> None:
    """A pull that was served before the closing returns its line. Otherwise it raises, even if a line has arrived."""

    wake_sent = threading.Event()

    def make_loop() -> asyncio.AbstractEventLoop:
        loop: Any = asyncio.new_event_loop()
        call = loop.call_soon_threadsafe

        def call_and_record(*args: Any, **kwargs: Any) -> Any:
            handle = call(*args, **kwargs)
            wake_sent.set()
            return handle

        loop.call_soon_threadsafe = call_and_record
        made: asyncio.AbstractEventLoop = loop
        return made

    async def run() -> str | BaseException:
        writer = os.open(fifo, os.O_RDWR)
        stream = wrap(SourceLinesObj(fifo))
        pull = asyncio.ensure_future(anext(stream))
        await yield_to_loop(5)
        closing = [asyncio.ensure_future(stream.aclose())] if closes_first else []
        # This is in the middle of a step, so callbacks wait for the next iteration.
        os.write(writer, b"there\n")
        assert wake_sent.wait(20)
        if not closes_first:
            closing.append(asyncio.ensure_future(stream.aclose()))
        (result,) = await asyncio.gather(pull, return_exceptions=True)
        await closing[0]
        assert await collect(stream) == []
        os.close(writer)
        return result

    with asyncio.Runner(loop_factory=make_loop) as runner:
        result = runner.run(run())
    if closes_first:
        assert isinstance(result, ClosedError)
    else:
        assert result == "there\n"


async def test_law_5_dropped_stream_closes_its_file(large: Path, fifo: Path) -> None:
    stream = SourceLinesObj(large).map(len)
    assert await anext(stream) == 7
    assert len(descriptors(large)) == 1
    del stream
    gc.collect()
    await eventually(lambda: not descriptors(large))
    waiting = SourceLinesObj(fifo)
    pull = asyncio.ensure_future(anext(waiting))
    await eventually(lambda: bool(descriptors(fifo)))
    pull.cancel()
    await asyncio.gather(pull, return_exceptions=True)
    del waiting, pull
    gc.collect()
    await eventually(lambda: not descriptors(fifo))
