"""One to many: fork, distribute, round robin, labels; and `PushChain`, which builds pipelines from the top."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    IteratorResult,
    PushDistributeObj,
    PushFilterObj,
    PushForkObj,
    PushLabeledDistributeObj,
    PushMapObj,
    PushObj,
    PushPullBufferObj,
    PushRoundRobinObj,
    PushTakeObj,
    PushWindowObj,
    SinkCallbackObj,
    SinkCollectObj,
    SinkNullObj,
    SinkObj,
    WouldBlock,
)
from tests.push_support import collectors
from tests.support import Heart, wrong

if TYPE_CHECKING:
    from collections.abc import Callable


class Slow(SinkObj[Any]):
    """Accepts items once the test sets `open`."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.items: list[Any] = []
        self.ends: list[Any] = []

    async def next_impl(self, item: Any) -> None:
        await self.open.wait()
        self.items.append(item)

    async def return_impl(self, value: Any) -> None:
        await asyncio.sleep(0)
        self.ends.append(value)

    async def throw_impl(self, error: BaseException) -> None:
        await asyncio.sleep(0)
        self.ends.append(error)


class Failing(SinkObj[Any]):
    """Fails at every method, after the given number of event-loop iterations."""

    def __init__(self, iterations: int = 0) -> None:
        super().__init__()
        self.iterations = iterations

    async def fail(self, detail: Any) -> None:
        for _ in range(self.iterations):
            await asyncio.sleep(0)
        raise OSError(detail)

    async def next_impl(self, item: Any) -> None:
        await self.fail(item)

    async def return_impl(self, value: Any) -> None:
        await self.fail("return")

    async def throw_impl(self, error: BaseException) -> None:
        await self.fail("throw")


def fail(item: Any) -> Any:
    raise ValueError(item)


@pytest.mark.parametrize("concurrent", [True, False])
@pytest.mark.parametrize("iterations", [0, 2])
async def test_branch_errors_are_grouped(concurrent: bool, iterations: int) -> None:
    slow, (ready,) = Slow(), collectors(1)
    slow.open.set()
    mapped = PushMapObj(SinkNullObj[Any](), fail)
    fork = PushForkObj([Failing(iterations), ready, mapped, slow], concurrent=concurrent)
    with pytest.raises(BaseExceptionGroup) as caught:
        await fork.next(1)
    assert isinstance(caught.value, ExceptionGroup)
    assert [type(error) for error in caught.value.exceptions] == [OSError, ValueError]
    assert ready.buffer == slow.items == [1]
    assert set(getattr(caught.value, "accepted_by", ())) == {ready, slow}
    only_one = PushForkObj([Failing(iterations), ready], concurrent=concurrent)
    with pytest.raises(OSError, match="2") as single:
        await only_one.next(2)
    assert getattr(single.value, "accepted_by", ()) == (ready,)
    assert ready.buffer == [1, 2]


async def test_self_cancelling_branch_is_an_error() -> None:
    class Cancelling(SinkObj[Any]):
        async def next_impl(self, item: Any) -> None:
            await asyncio.sleep(0)
            raise asyncio.CancelledError

    (ready,), slow = collectors(1), Slow()
    slow.open.set()
    fork = PushForkObj([Cancelling(), ready, slow, Failing(1)])
    with pytest.raises(BaseExceptionGroup) as caught:
        await fork.next(1)
    kinds = [type(error) for error in caught.value.exceptions]
    assert kinds == [asyncio.CancelledError, OSError]
    assert ready.buffer == slow.items == [1]


async def test_fork_concurrent_or_sequential() -> None:
    for concurrent in (True, False):
        slow, other, (ready,) = Slow(), Slow(), collectors(1)
        other.open.set()
        push = asyncio.create_task(PushForkObj([slow, other, ready], concurrent=concurrent).next(1))
        for _ in range(5):
            await asyncio.sleep(0)
        assert (other.items, ready.buffer) == (([1], [1]) if concurrent else ([], []))
        slow.open.set()
        await push
        assert slow.items == other.items == ready.buffer == [1]


async def test_bounded_buffer_decouples_slow_branch() -> None:
    slow, (fast,) = Slow(), collectors(1)
    buffer: PushPullBufferObj[int] = PushPullBufferObj(3)
    fork = PushForkObj([fast, buffer.sink])
    draining = asyncio.create_task(buffer.source.drain_to(slow))
    await asyncio.sleep(0)
    for n in range(3):
        await fork.next(n)
    await asyncio.sleep(0)
    await fork.next(3)
    blocked = asyncio.create_task(fork.next(4))
    await asyncio.sleep(0)
    assert not blocked.done()
    assert fast.buffer == [0, 1, 2, 3, 4]
    slow.open.set()
    await blocked
    await fork.return_("end")
    await draining
    assert slow.items == [0, 1, 2, 3, 4]
    assert slow.ends == [None]


@pytest.mark.parametrize("how", ["return_", "throw"])
async def test_end_reaches_all_branches_despite_errors(how: str) -> None:
    slow, (ready,) = Slow(), collectors(1)
    fork = PushForkObj([Failing(), ready, Failing(2), slow])
    error = KeyError("x")
    with pytest.raises(ExceptionGroup) as caught:
        await (fork.return_("end") if how == "return_" else fork.throw(error))
    assert [str(one) for one in caught.value.exceptions] == [how.rstrip("_")] * 2
    assert slow.ends == ["end" if how == "return_" else error]
    assert ready.closed
    await fork.return_()
    assert len(slow.ends) == 1
    with pytest.raises(ClosedError):
        await fork.next(1)


async def test_forward_close_false_keeps_shared_sinks_open() -> None:
    shared = collectors(2)
    fans: list[PushObj[Any]] = [
        PushForkObj(shared, forward_close=False),
        PushDistributeObj(shared, lambda _: 0, forward_close=False),
        PushRoundRobinObj(shared, forward_close=False),
        PushLabeledDistributeObj({1: shared[0]}, lambda _: 1, shared[1], forward_close=False),
    ]
    for fan in fans:
        await fan.return_()
    assert not any(sink.closed for sink in shared)
    await PushForkObj(shared, forward_close=False).throw(KeyError("x"))
    assert not any(sink.closed for sink in shared)
    await PushRoundRobinObj(shared).throw(KeyError("x"))
    assert all(sink.closed for sink in shared)


async def test_fork_flushes_its_branches_at_the_end() -> None:
    sinks = collectors(2)
    pipeline = PushMapObj[int, int](
        PushForkObj([PushWindowObj(sinks[0], 2), PushWindowObj(sinks[1], 10)]), int
    )
    for n in range(3):
        await pipeline.next(n)
    await pipeline.return_()
    assert [sink.buffer for sink in sinks] == [[[0, 1], [2]], [[0, 1, 2]]]


async def test_done_sinks_are_skipped() -> None:
    sinks = collectors(3)
    ring = PushRoundRobinObj([PushTakeObj(sinks[0], 1), sinks[1], PushTakeObj(sinks[2], 2)])
    assert not any([(await ring.next(n)).done for n in range(8)])
    assert [sink.buffer for sink in sinks] == [[0], [1, 3, 5, 6, 7], [2, 4]]
    both = PushRoundRobinObj([PushTakeObj(sinks[0], 1), SinkCollectObj[int](1)])
    assert [(await both.next(n)).done for n in range(3)] == [False, True, True]
    chosen = PushDistributeObj([SinkCollectObj[int](1), SinkCollectObj[int](2)], lambda n: n % 2)
    assert [(await chosen.next(n)).done for n in (0, 1, 2, 3)] == [False, False, False, True]


async def test_round_robin_allows_same_sink_twice() -> None:
    sinks = collectors(2)
    ring = PushRoundRobinObj([sinks[0], sinks[1], sinks[0]])
    for n in range(6):
        await ring.next(n)
    assert [sink.buffer for sink in sinks] == [[0, 2, 3, 5], [1, 4]]


async def test_round_robin_repeats_sink_of_failed_push() -> None:
    slow, (ready,) = Slow(), collectors(1)
    ring = PushRoundRobinObj([ready, slow])
    await ring.next(0)
    push = asyncio.create_task(ring.next(1))
    await asyncio.sleep(0)
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    slow.open.set()
    for n in (2, 3):
        await ring.next(n)
    assert (ready.buffer, slow.items) == ([0, 3], [2])
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    full = PushRoundRobinObj([buffer.sink, ready])
    full.next_nowait(4)
    full.next_nowait(5)
    for _ in range(2):
        with pytest.raises(WouldBlock):
            full.next_nowait(6)
    failing = PushRoundRobinObj([Failing(), ready])
    with pytest.raises(OSError, match="7"):
        await failing.next(7)
    await failing.next(8)
    assert ready.buffer == [0, 3, 5, 8]


@pytest.mark.parametrize("is_async", [False, True])
async def test_distribute_by_label(is_async: bool) -> None:
    async def later(n: int) -> str:
        await asyncio.sleep(0)
        return "odd" if n % 2 else "even"

    def now(n: int) -> str:
        return "odd" if n % 2 else "even"

    select: Any = later if is_async else now
    odd, even, rest = collectors(3)
    both = PushLabeledDistributeObj({"odd": odd, "even": even}, select)
    for n in range(4):
        await both.next(n)
    assert (odd.buffer, even.buffer) == ([1, 3], [0, 2])
    assert both.sinks == {"odd": odd, "even": even}
    with pytest.raises(KeyError, match="no sink has that label") as caught:
        await PushLabeledDistributeObj({"odd": odd}, select).next(2)
    assert caught.value.__notes__ == ["raised by selector of PushLabeledDistributeObj: item 2"]
    for missing in ("raise", "drop"):
        unhashable: Any = PushLabeledDistributeObj({"odd": odd}, lambda n: wrong([n]), missing)
        with pytest.raises(TypeError, match=r"a label, .* got \[2\] \(list\) for 2"):
            await unhashable.next(2)
    dropping = PushLabeledDistributeObj({"odd": odd}, select, "drop")
    assert await dropping.next(2) == IteratorResult(None, False)
    other = PushLabeledDistributeObj({"odd": odd}, select, rest)
    await other.next(2)
    await other.next(5)
    assert (odd.buffer, rest.buffer) == ([1, 3, 5], [2])
    other.selector = lambda _: "odd"
    await other.next(4)
    assert odd.buffer[-1] == 4
    await other.return_()
    assert rest.closed
    assert odd.closed
    same_sink = PushLabeledDistributeObj({"odd": even, "even": even}, select)
    await same_sink.next(6)
    assert even.buffer == [0, 2, 6]


async def test_law_13_new_selector_applies_to_next_item() -> None:
    sinks = collectors(2)
    pipeline = PushDistributeObj(sinks, lambda _: 0)
    await pipeline.next(1)
    pipeline.selector = lambda _: 1
    assert callable(pipeline.selector)
    await pipeline.next(2)
    assert [sink.buffer for sink in sinks] == [[1], [2]]
    with pytest.raises(TypeError, match="selector must be callable, got 3"):
        pipeline.selector = wrong(3)


async def test_nowait_delivers_to_all_or_none() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj(1)
    (ready,) = collectors(1)
    fork = PushForkObj([ready, PushMapObj(ready, str), buffer.sink])
    assert fork.next_nowait(1) == IteratorResult(None, False)
    for _ in range(2):
        with pytest.raises(WouldBlock) as caught:
            fork.next_nowait(2)
        assert caught.value.item == 2
        assert not getattr(caught.value, "accepted_by", ())
    assert ready.buffer == [1, "1"]
    pipeline = PushFilterObj(PushForkObj([PushForkObj([ready, buffer.sink])]), lambda _: True)
    with pytest.raises(WouldBlock):
        pipeline.next_nowait(3)
    assert ready.buffer == [1, "1"]


async def test_nowait_names_sinks_reached_before_block() -> None:
    async def delayed(n: int) -> int:
        return n

    (ready,) = collectors(1)
    fork = PushForkObj([ready, PushMapObj(SinkNullObj[int](), delayed)])
    with pytest.raises(WouldBlock) as caught:
        fork.next_nowait(1)
    assert ready.buffer == [1]
    assert getattr(caught.value, "accepted_by", ()) == (ready,)

    class WithoutNowait:
        async def next(self, item: int) -> IteratorResult[Any]:
            return IteratorResult(None, False)

        async def return_(self, value: Any = None) -> IteratorResult[Any]:
            return IteratorResult(value, True)

        async def throw(self, error: BaseException) -> IteratorResult[Any]:
            raise error

    with pytest.raises(AttributeError):
        PushMapObj(WithoutNowait(), int).next_nowait(1)


async def test_callback_can_push_into_its_own_fork() -> None:
    (ready,) = collectors(1)

    def again(n: int) -> None:
        if n < 3:
            fork.next_nowait(n + 1)

    fork: PushForkObj[int] = PushForkObj([ready, SinkCallbackObj(again)])
    await fork.next(0)
    assert ready.buffer == [0, 1, 2, 3]


async def test_forks_nested_too_deep_raise() -> None:
    pipeline: Any = SinkNullObj()
    for _ in range(100):
        pipeline = PushForkObj([pipeline])
    await pipeline.next(1)
    for _ in range(1000):
        pipeline = PushForkObj([pipeline])
    with pytest.raises(RecursionError, match="nested"):
        await pipeline.next(1)
    with pytest.raises(RecursionError):
        pipeline.next_nowait(1)


# Eager tasks have already started there, and their items are left over only once they have ended.
@pytest.mark.loops("asyncio", "uvloop")
async def test_fork_closed_manually_keeps_branch_batches() -> None:
    gate = asyncio.Event()

    async def wait(n: Any) -> Any:
        await gate.wait()
        return n

    sinks = collectors(2)
    fork = PushForkObj([PushWindowObj(PushMapObj[Any, Any](sink, wait), 1) for sink in sinks])
    push: Any = fork.next(1)
    push.send(None)
    with pytest.raises(GeneratorExit) as exited:
        push.throw(GeneratorExit)
    assert len(getattr(exited.value, "accepted_by", ())) == 2
    gate.set()
    await fork.return_()
    assert [sink.buffer for sink in sinks] == [[[1]], [[1]]]


async def test_law_16_fork_yields_to_event_loop() -> None:
    async with Heart() as heart:
        fork = PushForkObj(collectors(10))
        for n in range(20_000):
            await fork.next(n)
    assert heart.beats >= 20_000 // 4096


def test_reference_cycle_through_fork_is_collected() -> None:
    (sink,) = collectors(1)
    fork = PushForkObj([PushDistributeObj([sink], lambda _: 0), SinkCallbackObj(lambda _: fork)])
    fork.next_nowait(fork)
    fork_ref = weakref.ref(fork)
    sink = fork = wrong(None)
    gc.collect()
    assert fork_ref() is None


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: PushForkObj[Any]([]), ValueError, "at least one push object"),
    (lambda: PushRoundRobinObj[Any]([]), ValueError, "at least one push object"),
    (lambda: PushDistributeObj[Any]([], lambda _: 0), ValueError, "at least one push object"),
    (lambda: PushRoundRobinObj(wrong(3)), TypeError, r"sinks must be an iterable.*, got 3 \(int\)"),
    (
        lambda: PushRoundRobinObj([wrong(None)]),
        TypeError,
        r"sinks\[0\] must be a push object, got None",
    ),
    (lambda: PushLabeledDistributeObj({}, str), ValueError, "at least one push object"),
    (
        lambda: PushLabeledDistributeObj(wrong([SinkNullObj()]), str),
        TypeError,
        "sinks must be a mapping",
    ),
    (
        lambda: PushLabeledDistributeObj({"a": wrong(3)}, str),
        TypeError,
        r"sinks\['a'\] must be a push object, got 3",
    ),
    (
        lambda: PushLabeledDistributeObj({"a": SinkNullObj[Any]()}, wrong(3)),
        TypeError,
        "selector must be callable, got 3",
    ),
    (
        lambda: PushLabeledDistributeObj({"a": SinkNullObj[Any]()}, str, wrong("keep")),
        ValueError,
        "missing must be",
    ),
    (
        lambda: PushLabeledDistributeObj({"a": SinkNullObj[Any]()}, str, wrong(3)),
        TypeError,
        "missing must be a push object, got 3",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD)
def test_law_14_bad_input_fails_at_construction(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_law_14_fork_refuses_same_sink_twice() -> None:
    sinks = collectors(2)
    with pytest.raises(
        ValueError, match=r"different from each other, .* sinks\[0\] and sinks\[2\]"
    ):
        PushForkObj([*sinks, sinks[0]])
