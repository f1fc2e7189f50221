"""The signal."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from headrace import ClosedError, WaitObject


async def test_a_signal_that_nobody_waited_for_is_kept_for_the_next() -> None:
    signal: WaitObject[int] = WaitObject()
    signal.resolve(1)
    signal.resolve(2)
    assert await signal.wait() == 2
    wait = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    assert not wait.done()
    signal.resolve(3)
    assert await wait == 3


async def test_one_resolve_wakes_everybody_who_waits() -> None:
    signal: WaitObject[str] = WaitObject()
    waits = [asyncio.create_task(signal.wait()) for _ in range(5)]
    await asyncio.sleep(0)
    assert signal.waiting == 5
    signal.resolve("go")
    assert await asyncio.gather(*waits) == ["go"] * 5
    assert signal.waiting == 0


async def test_law_2_a_value_whose_takers_were_all_cancelled_is_kept() -> None:
    signal: WaitObject[int] = WaitObject()
    waits = [asyncio.ensure_future(signal.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    signal.resolve(1)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert await signal.wait() == 1


async def test_a_rejection_stays_until_it_is_reset() -> None:
    signal: WaitObject[int] = WaitObject()
    wait = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    error = OSError("down")
    signal.reject(error)
    for attempt in (wait, signal.wait(), signal.wait()):
        with pytest.raises(OSError, match="down") as caught:
            await attempt
        assert caught.value is error
    signal.reset()
    signal.resolve(1)
    assert await signal.wait() == 1


async def test_iteration_ends_when_the_signal_is_stopped() -> None:
    signal: WaitObject[int] = WaitObject()
    received: list[int] = []

    async def listen() -> None:
        async for value in signal:
            received.append(value)

    task = asyncio.create_task(listen())
    for n in range(3):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        signal.resolve(n)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    signal.stop()
    await task
    assert received == [0, 1, 2]
    with pytest.raises(ClosedError):
        await signal.wait()


async def test_law_9_a_thread_resolves() -> None:
    signal: WaitObject[int] = WaitObject()
    waits = [asyncio.create_task(signal.wait()) for _ in range(10)]
    await asyncio.sleep(0)
    thread = threading.Thread(target=signal.resolve, args=(7,))
    thread.start()
    assert await asyncio.gather(*waits) == [7] * 10
    await asyncio.to_thread(thread.join)


def test_a_rejection_wants_an_exception() -> None:
    bad: Any = "no exception"
    with pytest.raises(TypeError, match="error must be an exception, got 'no exception'"):
        WaitObject[int]().reject(bad)
