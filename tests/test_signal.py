"""`WaitObject`, the signal."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from headrace import ClosedError, WaitObject


async def test_unawaited_value_is_kept_for_next_wait() -> None:
    signal: WaitObject[int] = WaitObject()
    signal.resolve(1)
    signal.resolve(2)
    assert await signal.wait() == 2
    wait = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    assert not wait.done()
    signal.resolve(3)
    assert await wait == 3


async def test_resolve_wakes_all_waiters() -> None:
    signal: WaitObject[str] = WaitObject()
    waits = [asyncio.create_task(signal.wait()) for _ in range(5)]
    await asyncio.sleep(0)
    assert signal.waiting == 5
    signal.resolve("go")
    assert await asyncio.gather(*waits) == ["go"] * 5
    assert signal.waiting == 0


async def test_law_2_value_of_cancelled_waiters_is_kept() -> None:
    signal: WaitObject[int] = WaitObject()
    waits = [asyncio.ensure_future(signal.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    signal.resolve(1)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert await signal.wait() == 1


async def test_rejection_stays_until_reset() -> None:
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


async def test_iteration_ends_when_signal_is_stopped() -> None:
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


async def test_law_9_thread_resolves_signal() -> None:
    signal: WaitObject[int] = WaitObject()
    waits = [asyncio.create_task(signal.wait()) for _ in range(10)]
    await asyncio.sleep(0)
    thread = threading.Thread(target=signal.resolve, args=(7,))
    thread.start()
    assert await asyncio.gather(*waits) == [7] * 10
    await asyncio.to_thread(thread.join)


def test_reject_requires_an_exception() -> None:
    bad: Any = "no exception"
    with pytest.raises(TypeError, match="error must be an exception, got 'no exception'"):
        WaitObject[int]().reject(bad)


async def test_rejected_signal_ignores_values_until_reset() -> None:
    signal: WaitObject[int] = WaitObject()
    first, second = OSError("first"), OSError("second")
    signal.reject(first)
    signal.resolve(1)
    with pytest.raises(OSError, match="first"):
        await signal.wait()
    signal.reject(second)
    with pytest.raises(OSError, match="second"):
        await signal.wait()
    signal.reset()
    wait = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    assert not wait.done()
    signal.resolve(2)
    assert await wait == 2


async def test_rejection_discards_value_of_cancelled_waiter() -> None:
    signal: WaitObject[int] = WaitObject()
    wait = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    signal.resolve(1)
    wait.cancel()
    signal.reject(OSError("down"))
    await asyncio.wait([wait])
    with pytest.raises(OSError, match="down"):
        await signal.wait()
    signal.reset()
    assert signal.waiting == 0


async def test_last_of_several_untaken_values_is_kept() -> None:
    signal: WaitObject[int] = WaitObject()
    for value in (1, 2):
        wait = asyncio.ensure_future(signal.wait())
        await asyncio.sleep(0)
        signal.resolve(value)
        wait.cancel()
        await asyncio.wait([wait])
    assert await signal.wait() == 2
    assert signal.waiting == 0


async def test_reset_discards_kept_value_only() -> None:
    signal: WaitObject[int] = WaitObject()
    signal.resolve(1)
    signal.reset()
    wait = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    assert not wait.done()
    signal.resolve(2)
    signal.reset()
    assert await wait == 2


async def test_value_resolved_before_stop_is_delivered() -> None:
    signal: WaitObject[int] = WaitObject()
    wait = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0)
    signal.resolve(1)
    signal.stop()
    signal.stop()
    assert await wait == 1
    signal.resolve(2)
    with pytest.raises(ClosedError, match="stopped"):
        await signal.wait()
    assert [value async for value in signal] == []


async def test_iteration_raises_rejection_then_continues() -> None:
    signal: WaitObject[int] = WaitObject()
    signal.reject(OSError("down"))
    with pytest.raises(OSError, match="down"):
        async for _ in signal:
            pass
    signal.reset()
    signal.resolve(1)
    async for value in signal:
        assert value == 1
        break


@pytest.mark.parametrize("sticky", [False, True])
async def test_reference_cycle_through_signal_is_collected(sticky: bool) -> None:
    class OwnError(Exception):
        signal: Any

    held = OwnError()
    held.signal = WaitObject[Any]()
    if sticky:
        held.signal.reject(held)
    else:
        held.signal.resolve(held)
    held_ref = weakref.ref(held)
    del held
    gc.collect()
    assert held_ref() is None


@pytest.mark.parametrize("suspensions", [1, 2])
@pytest.mark.parametrize("iterates", [False, True])
@pytest.mark.parametrize("sticky", [False, True])
async def test_value_that_holds_its_own_waiter_is_collected(
    suspensions: int, iterates: bool, sticky: bool
) -> None:
    class OwnError(Exception):
        wait: Any

    held = OwnError()
    signal: WaitObject[Any] = WaitObject()
    held.wait = anext(signal) if iterates else signal.wait()
    for _ in range(suspensions):
        held.wait.send(None)
    if sticky:
        signal.reject(held)
    else:
        signal.resolve(held)
    held_ref = weakref.ref(held)
    # Only the awaitable still refers to the signal.
    del held, signal
    gc.collect()
    assert held_ref() is None


async def test_destructor_that_resolves_does_not_deadlock() -> None:
    signal: WaitObject[Any] = WaitObject()

    class Resolving:
        def __del__(self) -> None:
            signal.resolve("from the grave")

    signal.resolve(Resolving())
    signal.resolve(1)
    assert await signal.wait() == "from the grave"


def test_law_9_two_loops_and_a_thread_share_a_signal() -> None:
    signal: WaitObject[int] = WaitObject()
    received: list[list[int]] = [[], []]

    async def listen(into: list[int]) -> None:
        async for value in signal:
            into.append(value)

    threads = [threading.Thread(target=asyncio.run, args=(listen(into),)) for into in received]
    for thread in threads:
        thread.start()
    for value in range(2000):
        signal.resolve(value)
    signal.stop()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    # A consumer that is not waiting misses a value. None sees a value twice, or an older one later.
    for into in received:
        assert into == sorted(set(into))
