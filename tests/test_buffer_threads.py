"""Buffers and signals in threads without an event loop: blocking calls sleep until they are served."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace import ClosedError, PushPullBufferObj, WaitObject, WouldBlock
from tests.support import eventually, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOUNDS = pytest.mark.parametrize("maxsize", [1, 16, None])


def items(buffer: PushPullBufferObj[Any]) -> Iterator[Any]:
    """Yield all items that a thread gets, until the end."""
    with contextlib.suppress(ClosedError):
        while True:
            yield buffer.get_sync(20)


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a thread; return it and the list that its result or error is appended to."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def wait_until(condition: Callable[[], object]) -> None:
    """Wait in a thread until a condition is true."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.001)


def waiting(buffer: PushPullBufferObj[Any]) -> tuple[int, int]:
    """Return the number of waiting consumers and of waiting producers."""
    figures = buffer.statistics()
    return figures.waiting_consumers, figures.waiting_producers


def join_thread(thread: threading.Thread) -> None:
    thread.join(20)
    assert not thread.is_alive()


@BOUNDS
def test_law_9_threads_move_every_item_once_in_order(maxsize: int | None) -> None:
    buffer: PushPullBufferObj[tuple[int, int]] = PushPullBufferObj(maxsize)

    def produce(number: int) -> None:
        for n in range(500):
            buffer.put_sync((number, n), timeout=20)

    producers = [in_thread(lambda number=number: produce(number)) for number in range(8)]  # type: ignore[misc]
    consumers = [in_thread(lambda: list(items(buffer))) for _ in range(8)]
    for thread, _ in producers:
        join_thread(thread)
    buffer.end()
    for thread, _ in consumers:
        join_thread(thread)
    taken = [outcome[0] for _, outcome in consumers]
    for into in taken:
        for number in range(8):
            numbers = [n for producer, n in into if producer == number]
            assert numbers == sorted(numbers)
    everything = [(number, n) for number in range(8) for n in range(500)]
    assert sorted(item for into in taken for item in into) == everything
    assert [outcome for _, outcome in producers] == [[None]] * 8


@BOUNDS
async def test_law_9_threads_and_tasks_share_both_ends(maxsize: int | None) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(maxsize)
    pulled: list[int] = []

    async def push(first: int) -> None:
        for n in range(first, first + 500):
            await buffer.sink.next(n)

    def put(first: int) -> None:
        for n in range(first, first + 500):
            buffer.put_sync(n, 20)

    async def pull() -> None:
        async for n in buffer.source:
            pulled.append(n)

    consumers = [in_thread(lambda: list(items(buffer))) for _ in range(2)]
    pulls = [asyncio.create_task(pull()) for _ in range(2)]
    await asyncio.gather(
        *(push(first) for first in (0, 500)),
        *(asyncio.to_thread(put, first) for first in (1000, 1500)),
    )
    await buffer.sink.return_()
    await asyncio.gather(*pulls)
    for thread, _ in consumers:
        await asyncio.to_thread(join_thread, thread)
    assert sorted(pulled + consumers[0][1][0] + consumers[1][1][0]) == list(range(2000))


async def test_law_12_threads_and_tasks_share_one_wait_queue() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    await buffer.sink.next(0)
    one = in_thread(lambda: buffer.put_sync(1))
    await eventually(lambda: buffer.statistics().waiting_producers == 1)
    two = asyncio.create_task(buffer.sink.next(2))
    await eventually(lambda: buffer.statistics().waiting_producers == 2)
    three = in_thread(lambda: buffer.put_sync(3))
    await eventually(lambda: buffer.statistics().waiting_producers == 3)
    assert [await anext(buffer.source) for _ in range(4)] == [0, 1, 2, 3]
    await two
    for thread, outcome in (one, three):
        join_thread(thread)
        assert outcome == [None]


def test_timed_out_thread_leaves_no_trace() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    for timeout in (0, 0.01):
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=f"no item came within {timeout} seconds"):
            buffer.get_sync(timeout)
        assert time.monotonic() - begun >= timeout
    buffer.put_sync(1, timeout=0)
    for timeout in (0, 0.01):
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=f"no room for the item within {timeout} seconds"):
            buffer.put_sync(2, timeout)
        assert time.monotonic() - begun >= timeout
    assert buffer.get_sync(timeout=0) == 1
    # A call that timed out is no longer queued, and its item is not stored.
    figures = buffer.statistics()
    assert (figures.waiting_consumers, figures.waiting_producers, figures.size) == (0, 0, 0)
    buffer.put_sync(3)
    assert buffer.get_sync(float("inf")) == 3


@pytest.mark.parametrize("side", ["put", "get"])
def test_interrupted_main_thread_moves_no_item(side: str) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    if side == "put":
        buffer.put_sync(1)

    def interrupt() -> None:
        wait_until(lambda: sum(waiting(buffer)))
        _thread.interrupt_main()

    thread, outcome = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        buffer.put_sync(2) if side == "put" else buffer.get_sync()
    join_thread(thread)
    assert outcome == [None]
    assert sum(waiting(buffer)) == 0
    if side == "get":
        buffer.put_sync(1)
    assert buffer.get_sync() == 1
    assert len(buffer) == 0


def test_end_drains_and_then_wakes_all_threads() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    threads = [in_thread(buffer.get_sync) for _ in range(3)]
    wait_until(lambda: buffer.statistics().waiting_consumers == 3)
    buffer.put_sync(1)
    buffer.end()
    for thread, _ in threads:
        join_thread(thread)
    outcomes = [outcome[0] for _, outcome in threads]
    assert outcomes.count(1) == 1
    assert [type(outcome) for outcome in outcomes].count(ClosedError) == 2
    buffer.end()
    with pytest.raises(ClosedError, match="no item will come"):
        buffer.get_sync()
    with pytest.raises(ClosedError) as caught:
        buffer.put_sync(2)
    assert caught.value.item == 2
    assert buffer.sink.closed
    assert "ended" in repr(buffer)


async def test_end_by_a_thread_ends_sink_and_source() -> None:
    error = KeyError("x")
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    buffer.put_sync(1)
    await asyncio.to_thread(buffer.end, error)
    buffer.end(ValueError("not the first"))
    with pytest.raises(ClosedError) as caught:
        await buffer.sink.next(2)
    assert caught.value.item == 2
    assert await anext(buffer.source) == 1
    with pytest.raises(KeyError) as raised:
        await anext(buffer.source)
    assert raised.value is error
    assert [n async for n in buffer.source] == []


def test_producer_error_goes_to_one_thread_only() -> None:
    error = KeyError("x")
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    buffer.put_sync(1)
    buffer.end(error)
    assert buffer.get_sync() == 1
    with pytest.raises(KeyError) as caught:
        buffer.get_sync()
    assert caught.value is error
    with pytest.raises(ClosedError):
        buffer.get_sync()


async def test_closing_the_source_returns_items_of_threads() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    buffer.put_sync(0)
    blocked = [in_thread(lambda n=n: buffer.put_sync(n)) for n in (1, 2)]  # type: ignore[misc]
    await eventually(lambda: buffer.statistics().waiting_producers == 2)
    await buffer.source.aclose()
    for thread, _ in blocked:
        await asyncio.to_thread(join_thread, thread)
    refused = [outcome[0] for _, outcome in blocked]
    assert [type(error) for error in refused] == [ClosedError] * 2
    assert {error.item for error in refused} == {1, 2}
    with pytest.raises(ClosedError):
        buffer.get_sync()


async def test_thread_with_a_running_loop_is_not_blocked() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    with pytest.raises(RuntimeError, match=r"get_sync\(\) would .* await anext\(source\) instead"):
        buffer.get_sync()
    # A call that need not wait succeeds.
    buffer.put_sync(1)
    with pytest.raises(RuntimeError, match=r"put_sync\(\) would .* await sink\.next\(item\) inst"):
        buffer.put_sync(2)
    assert buffer.get_sync() == 1
    assert waiting(buffer) == (0, 0)
    signal: WaitObject[int] = WaitObject()
    with pytest.raises(RuntimeError, match=r"wait_sync\(\) would .* await wait\(\) instead"):
        signal.wait_sync()
    signal.resolve(1)
    assert signal.wait_sync() == 1
    assert signal.waiting == 0


def test_put_sync_follows_the_overflow_policy() -> None:
    refusing: PushPullBufferObj[int] = PushPullBufferObj(1, overflow="error")
    refusing.put_sync(1)
    with pytest.raises(WouldBlock) as caught:
        refusing.put_sync(2, timeout=20)
    assert caught.value.item == 2
    oldest: PushPullBufferObj[int] = PushPullBufferObj(1, overflow="drop_oldest")
    newest: PushPullBufferObj[int] = PushPullBufferObj(1, overflow="drop_newest")
    for n in range(3):
        oldest.put_sync(n)
        newest.put_sync(n)
    assert (oldest.get_sync(), newest.get_sync()) == (2, 0)


def test_blocked_put_sync_is_sorted_in_when_space_is_free() -> None:
    buffer: PushPullBufferObj[str] = PushPullBufferObj(2, order="priority", key=len)
    buffer.put_sync("ccc")
    buffer.put_sync("b")
    thread, outcome = in_thread(lambda: buffer.put_sync("aa"))
    wait_until(lambda: buffer.statistics().waiting_producers == 1)
    assert buffer.get_sync() == "b"
    join_thread(thread)
    assert outcome == [None]
    assert [buffer.get_sync() for _ in range(2)] == ["aa", "ccc"]
    with pytest.raises(TypeError, match="has no len"):
        buffer.put_sync(wrong(3))
    # An incomparable item is refused when its push is served, and its slot goes to the next push.
    plain: PushPullBufferObj[Any] = PushPullBufferObj(2, order="priority")
    plain.put_sync(1)
    plain.put_sync(2)
    refused = in_thread(lambda: plain.put_sync("x"))
    wait_until(lambda: plain.statistics().waiting_producers == 1)
    stored = in_thread(lambda: plain.put_sync(0))
    wait_until(lambda: plain.statistics().waiting_producers == 2)
    assert plain.get_sync() == 1
    for thread, _ in (refused, stored):
        join_thread(thread)
    assert [type(one) for one in refused[1]] == [TypeError]
    assert stored[1] == [None]
    assert [plain.get_sync() for _ in range(2)] == [0, 2]


def test_signal_wakes_threads_and_keeps_unread_value() -> None:
    signal: WaitObject[int] = WaitObject()
    threads = [in_thread(signal.wait_sync) for _ in range(3)]
    wait_until(lambda: signal.waiting == 3)
    signal.resolve(7)
    for thread, outcome in threads:
        join_thread(thread)
        assert outcome == [7]
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no value came within 0\.01 seconds"):
        signal.wait_sync(0.01)
    assert time.monotonic() - begun >= 0.01
    assert signal.waiting == 0
    signal.resolve(8)
    assert signal.wait_sync(0) == 8
    error = KeyError("x")
    thread, outcome = in_thread(signal.wait_sync)
    wait_until(lambda: signal.waiting == 1)
    signal.reject(error)
    join_thread(thread)
    assert outcome == [error]
    signal.reset()
    thread, outcome = in_thread(signal.wait_sync)
    wait_until(lambda: signal.waiting == 1)
    signal.stop()
    join_thread(thread)
    assert [type(one) for one in outcome] == [ClosedError]


@pytest.mark.parametrize(
    ("bad", "kind", "pattern"),
    [
        ("1", TypeError, r"timeout must be a number of seconds, got '1' \(str\)"),
        (True, TypeError, r"timeout must be a number of seconds, got True \(bool\)"),
        (-1, ValueError, r"timeout must not be negative, got -1 \(int\)"),
        (
            float("nan"),
            ValueError,
            r"timeout must be a number of seconds from 0, got nan \(float\)",
        ),
    ],
)
def test_law_14_bad_timeout_is_refused_without_effect(
    bad: Any, kind: type[Exception], pattern: str
) -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    with pytest.raises(kind, match=pattern):
        buffer.put_sync(1, bad)
    assert len(buffer) == 0
    buffer.put_sync(1)
    with pytest.raises(kind, match=pattern):
        buffer.get_sync(bad)
    assert buffer.get_sync() == 1
    signal: WaitObject[int] = WaitObject()
    signal.resolve(1)
    with pytest.raises(kind, match=pattern):
        signal.wait_sync(bad)
    assert signal.wait_sync() == 1


def test_law_14_error_of_end_must_be_an_exception() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    with pytest.raises(TypeError, match=r"error must be an exception or None, got 'x' \(str\)"):
        buffer.end(wrong("x"))
    buffer.put_sync(1)
    assert buffer.get_sync() == 1
