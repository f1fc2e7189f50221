"""Streams under a capacity: `source.limit(capacity)` and `SinkCapacityObj`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    Budget,
    BudgetExhausted,
    CapacitySource,
    ClosedError,
    QuotaCapacitySource,
    Rate,
    SinkCapacityObj,
    SinkCollectObj,
    SourceCapacityObj,
    SourceIterObj,
)
from tests.support import Gate, budget_capacity, collect, until, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Watched:
    """An endless source that checks that each running item is covered by a lease."""

    def __init__(self, capacity: CapacitySource) -> None:
        self.capacity = capacity
        self.running = self.peak = 0

    async def items(self) -> AsyncIterator[int]:
        while True:
            self.running += 1
            self.peak = max(self.peak, self.running)
            assert self.running <= self.capacity.held
            await asyncio.sleep(0)
            self.running -= 1
            yield 1


async def test_source_is_not_pulled_before_the_grant() -> None:
    capacity = CapacitySource(1)
    lease = await capacity.acquire(owner=None)
    pulled: list[int] = []

    def source() -> Any:
        for number in range(3):
            pulled.append(number)
            yield number

    stream = SourceIterObj(source()).limit(capacity)
    assert isinstance(stream, SourceCapacityObj)
    pull = asyncio.ensure_future(anext(stream))
    await until(lambda: capacity.waiting == 1)
    assert not pulled
    lease.release()
    assert await pull == 0
    # No lease is held while the next stage has the item.
    assert capacity.held == 0
    assert await stream.collect() == [1, 2]
    assert capacity.held == 0


async def test_streams_share_one_capacity() -> None:
    capacity = CapacitySource(2)
    watched = Watched(capacity)
    streams = [SourceIterObj(watched.items()).limit(capacity).take(20) for _ in range(5)]
    assert await asyncio.gather(*(collect(stream) for stream in streams)) == [[1] * 20] * 5
    assert watched.peak == 2
    assert capacity.held == capacity.waiting == 0
    for stream in streams:
        await stream.aclose()


async def test_failed_or_ended_pull_holds_nothing() -> None:
    capacity = CapacitySource(3)

    def picky(number: int) -> int:
        if number == 1:
            raise ValueError(number)
        return number

    stream = SourceIterObj([0, 1, 2]).map(picky).limit(capacity, cost=2, priority=1)
    assert await anext(stream) == 0
    with pytest.raises(ValueError, match="1"):
        await anext(stream)
    assert capacity.held == 0
    assert await collect(stream) == [2]
    assert capacity.held == 0


async def test_cancelled_pull_keeps_item_and_holds_nothing() -> None:
    capacity = CapacitySource(1)
    gate = Gate()
    stream = SourceIterObj([1, 2]).map(gate).limit(capacity)
    for waits_for_lease in (True, False):
        lease = await capacity.acquire(owner=None) if waits_for_lease else None
        pull = asyncio.ensure_future(anext(stream))
        await yield_to_loop(3)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        if lease is not None:
            lease.release()
        assert capacity.held == capacity.waiting == 0
    gate.open.set()
    assert await stream.collect() == [10, 20]
    await stream.aclose()


@pytest.mark.virtual
async def test_rate_paces_a_stream() -> None:
    loop = asyncio.get_running_loop()
    pace = QuotaCapacitySource(Rate(2, per=1.0), clock=loop.time)
    begun = loop.time()
    times = [loop.time() - begun async for _ in SourceIterObj(range(4)).limit(pace)]
    assert times == pytest.approx([0, 0.5, 1, 1.5])


async def test_closed_capacity_of_a_stream_can_be_replaced() -> None:
    capacity, other = CapacitySource(1), CapacitySource(1)
    stream = SourceIterObj([1, 2]).limit(capacity)
    capacity.close()
    with pytest.raises(ClosedError):
        await anext(stream)
    stream.capacity = other
    assert stream.capacity is other
    assert await collect(stream) == [1, 2]


async def test_limited_stream_can_be_restarted() -> None:
    stream = SourceIterObj([1, 2]).limit(CapacitySource(1))
    assert await collect(stream) == [1, 2]
    stream.restart()
    assert await collect(stream) == [1, 2]


async def test_exactly_spent_budget_delivers_all_items() -> None:
    budget = budget_capacity(5)
    stream = SourceIterObj(range(5)).limit(budget, cost={"dollars": 1})
    assert await collect(stream) == [0, 1, 2, 3, 4]
    assert budget.held["dollars"] == 5
    # The end is free, however often the stream is pulled after it.
    budget = budget_capacity(10)
    stream = SourceIterObj(range(5)).limit(budget, cost={"dollars": 1})
    assert await collect(stream) == [0, 1, 2, 3, 4]
    assert await anext(stream, None) is None
    assert budget.held["dollars"] == 5


async def test_item_beyond_the_budget_is_held_back() -> None:
    budget = budget_capacity(2, slots=1)
    pulled: list[int] = []

    def source() -> Any:
        for number in range(4):
            pulled.append(number)
            yield number

    stream = SourceIterObj(source()).limit(budget, cost={"slots": 1, "dollars": 1})
    assert [await anext(stream), await anext(stream)] == [0, 1]
    # The other resources of the cost are acquired first here too.
    lease = await budget.acquire({"slots": 1}, owner=None)
    pull = asyncio.ensure_future(anext(stream))
    await until(lambda: budget.waiting == 1)
    assert pulled == [0, 1]
    lease.release()
    for refused in (pull, anext(stream), anext(stream)):
        with pytest.raises(BudgetExhausted):
            await refused
        assert pulled == [0, 1, 2]
        assert budget.held == {"slots": 0, "dollars": 2}
    assert "an item held back" in repr(stream)
    budget.resize({"dollars": Budget(3)})
    assert await anext(stream) == 2
    assert budget.held == {"slots": 0, "dollars": 3}
    with pytest.raises(BudgetExhausted):
        await anext(stream)
    # Another capacity may pay for it as well.
    stream.capacity = other = budget_capacity(2, slots=1)
    assert await collect(stream) == [3]
    assert other.held["dollars"] == 1


async def test_restart_drops_the_held_back_item() -> None:
    budget = budget_capacity(1)
    stream = SourceIterObj([1, 2]).limit(budget, cost={"dollars": 1})
    assert await anext(stream) == 1
    with pytest.raises(BudgetExhausted):
        await anext(stream)
    stream.restart()
    budget.resize({"dollars": Budget(3)})
    assert await collect(stream) == [1, 2]


@pytest.mark.virtual
async def test_look_ahead_keeps_to_the_rate() -> None:
    loop = asyncio.get_running_loop()
    limits: dict[str, Budget | Rate] = {"dollars": Budget(2), "calls": Rate(2, per=1.0)}
    capacity = CapacitySource(limits, clock=loop.time)
    begun = loop.time()
    stream = SourceIterObj([1, 2]).limit(capacity, cost={"dollars": 1, "calls": 1})
    assert await collect(stream) == [1, 2]
    assert loop.time() - begun == pytest.approx(1)
    # The end has used up no call.
    async with capacity.acquire({"calls": 1}):
        pass
    assert loop.time() - begun == pytest.approx(1)


@pytest.mark.virtual
async def test_law_2_cancelled_pull_spends_nothing() -> None:
    loop = asyncio.get_running_loop()
    limits: dict[str, Budget | Rate] = {"dollars": Budget(2), "calls": Rate(1, per=60, burst=2)}
    capacity = CapacitySource(limits, clock=loop.time)
    gate = Gate()
    stream = SourceIterObj([1, 2]).map(gate).limit(capacity, cost={"dollars": 1, "calls": 1})
    for _ in range(5):
        pull = asyncio.ensure_future(anext(stream))
        await yield_to_loop(3)
        assert capacity.held["dollars"] == 1
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        assert capacity.held == {"dollars": 0, "calls": 0}
    gate.open.set()
    begun = loop.time()
    assert [await anext(stream), await anext(stream)] == [10, 20]
    assert loop.time() == begun
    assert capacity.held == {"dollars": 2, "calls": 2}
    await stream.aclose()


async def test_pull_refused_upstream_spends_nothing() -> None:
    budget, closed = budget_capacity(2), CapacitySource(1)
    stream = SourceIterObj([1]).limit(closed).limit(budget, cost={"dollars": 1})
    closed.close()
    with pytest.raises(ClosedError):
        await anext(stream)
    assert budget.held["dollars"] == 0


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_law_3_error_costs_as_much_as_an_item(error: type[BaseException]) -> None:
    budget = budget_capacity(3)

    async def picky(number: int) -> int:
        if number == 1:
            raise error
        return number

    stream = SourceIterObj([0, 1, 2]).map(picky).limit(budget, cost={"dollars": 1})
    assert await anext(stream) == 0
    with pytest.raises(error):
        await anext(stream)
    assert budget.held["dollars"] == 2
    assert await collect(stream) == [2]
    assert budget.held["dollars"] == 3


async def test_cost_mapping_is_copied() -> None:
    cost = {"dollars": 1}
    budget, pushed = budget_capacity(9), budget_capacity(9)
    stream = SourceIterObj([1, 2]).limit(budget, cost=cost)
    limited = SinkCapacityObj(SinkCollectObj[int](), pushed, cost=cost)
    cost["dollars"] = -4
    assert await collect(stream) == [1, 2]
    await limited.next(1)
    assert (budget.held["dollars"], pushed.held["dollars"]) == (2, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda *a, **k: SourceCapacityObj([1], *a, **k),
        lambda *a, **k: SinkCapacityObj(SinkCollectObj(), *a, **k),
    ],
)
def test_law_14_bad_input_fails_at_construction(make: Any) -> None:
    capacity = CapacitySource(2)
    with pytest.raises(TypeError, match=r"capacity must be a CapacitySource, got 3 \(int\)"):
        make(wrong(3))
    with pytest.raises(ValueError, match="cost must not be negative"):
        make(capacity, cost=-1)
    with pytest.raises(ValueError, match="can never be granted"):
        make(capacity, cost=3)
    with pytest.raises(TypeError, match=r"priority must be an integer, got 'high' \(str\)"):
        make(capacity, priority="high")


def test_lone_surrogate_error_names_the_parameter() -> None:
    capacity = CapacitySource(1)
    lone, pattern = "a\udc80", r"without a lone surrogate, got 'a\\udc80' \(str\)"
    with pytest.raises(ValueError, match=rf"^name must be text .*{pattern}"):
        CapacitySource(1, name=lone)
    with pytest.raises(ValueError, match=rf"^a resource of limit must be text .*{pattern}"):
        CapacitySource({lone: 1})
    with pytest.raises(ValueError, match=rf"^a resource of cost must be text .*{pattern}"):
        capacity.acquire_nowait({lone: 1})
    with pytest.raises(ValueError, match=rf"^resource must be text .*{pattern}"):
        capacity.cool_down(1, resource=lone)
    with (
        capacity.acquire_sync() as lease,
        pytest.raises(ValueError, match=f"^a resource .*{pattern}"),
    ):
        lease.settle(**{lone: 1})


@pytest.mark.parametrize(
    ("seconds", "pattern"),
    [
        (float("nan"), r"seconds must be a number of seconds from 0, got nan \(float\)"),
        (float("inf"), r"seconds must be finite, got inf \(float\); pause\(\)"),
        (10**400, r"seconds must be at most 10\*\*308, got 1000.* \(int\)"),
        (-(10**400), r"seconds must not be negative, got -1000.* \(int\)"),
    ],
    ids=["nan", "infinite", "beyond floats", "below floats"],
)
def test_bad_cooldown_seconds_are_refused(seconds: float, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        CapacitySource(1).cool_down(seconds)


async def test_cooldown_may_be_very_long() -> None:
    capacity = CapacitySource(1)
    capacity.cool_down(1e300)
    assert capacity.acquire_nowait() is None
    waiting = asyncio.ensure_future(capacity.acquire())
    await yield_to_loop(3)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


def test_resource_must_be_a_string() -> None:
    with pytest.raises(TypeError, match=r"^resource must be a string or None, got 3 \(int\)"):
        CapacitySource(1).cool_down(1, resource=wrong(3))


def test_suspended_lease_can_settle_its_rate() -> None:
    # On a clock that never advances: with time, the rate restores tokens.
    capacity = CapacitySource({"slots": 1, "tokens": Rate(10, per=3600)}, clock=lambda: 0.0)
    with capacity.acquire_sync({"slots": 1, "tokens": 5}) as lease, lease.suspended():
        lease.settle(tokens=2)
        with pytest.raises(RuntimeError, match="this lease is suspended"):
            lease.settle(slots=0)
        assert 2 <= capacity.held["tokens"] < 2.1
