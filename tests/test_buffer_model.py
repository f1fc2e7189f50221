"""Every overflow with every order, against a model in plain Python.

Random pushes, pulls and cancellations. After each of them the loop settles, and the buffer must agree with the model on
its items, the next item, the number of waiters on either side and the number of dropped items.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from headrace import ClosedError, PushPullBufferObj, WouldBlock
from headrace.buffer import BufferStatistics
from tests.support import yield_to_loop

Item = tuple[int, int]
ORDERS = ["fifo", "lifo", "priority"]
OVERFLOWS = ["block", "drop_oldest", "drop_newest", "error"]


@dataclass
class Model:
    """The expected behaviour of a buffer."""

    maxsize: int | None
    overflow: str
    order: str
    # In order of arrival.
    items: list[Item] = field(default_factory=list)
    producers: deque[Item] = field(default_factory=deque)
    # Numbers of the waiting pulls.
    consumers: deque[int] = field(default_factory=deque)
    received: dict[int, Item] = field(default_factory=dict)
    dropped: list[Item] = field(default_factory=list)
    high_water: int = 0

    @property
    def is_full(self) -> bool:
        return self.maxsize is not None and len(self.items) >= self.maxsize

    def next_item(self) -> Item:
        if self.order == "priority":
            return min(self.items, key=lambda item: item[0])
        return self.items[0 if self.order == "fifo" else -1]

    def push(self, item: Item, *, waits: bool) -> str:
        """Push an item and return its outcome."""
        if self.is_full:
            if self.overflow == "block" and waits:
                self.producers.append(item)
                return "waits"
            if self.overflow in ("block", "error"):
                return "refused"
            self.dropped.append(self.items.pop(0) if self.overflow == "drop_oldest" else item)
            if self.overflow == "drop_newest":
                return "accepted"
        self.items.append(item)
        self.high_water = max(self.high_water, len(self.items))
        self.serve()
        return "accepted"

    def pull(self, number: int) -> None:
        self.consumers.append(number)
        self.serve()

    def serve(self) -> None:
        while self.consumers and self.items:
            item = self.next_item()
            self.items.remove(item)
            self.received[self.consumers.popleft()] = item
            while self.producers and not self.is_full:
                self.items.append(self.producers.popleft())

    def statistics(self) -> BufferStatistics:
        return BufferStatistics(
            len(self.items),
            self.high_water,
            len(self.dropped),
            len(self.consumers),
            len(self.producers),
        )


class Run:
    """A buffer and its model."""

    def __init__(self, rng: random.Random, maxsize: int | None, overflow: Any, order: Any) -> None:
        self.rng = rng
        key = (lambda item: item[0]) if order == "priority" else None
        self.buffer: PushPullBufferObj[Item] = PushPullBufferObj(
            maxsize, overflow=overflow, order=order, key=key
        )
        self.model = Model(maxsize, overflow, order)
        self.pushes: dict[Item, asyncio.Future[Any]] = {}
        self.pulls: dict[int, asyncio.Future[Item]] = {}
        self.numbers = itertools.count()

    async def push(self) -> None:
        item = (self.rng.randrange(5), next(self.numbers))
        push = asyncio.ensure_future(self.buffer.sink.next(item))
        effect = self.model.push(item, waits=True)
        await yield_to_loop(6)
        if effect == "waits":
            self.pushes[item] = push
            assert not push.done()
        else:
            self.check_push(push, item, effect)

    async def push_now(self) -> None:
        item = (self.rng.randrange(5), next(self.numbers))
        effect = self.model.push(item, waits=False)
        if effect == "refused":
            with pytest.raises(WouldBlock) as caught:
                self.buffer.sink.next_nowait(item)
            assert caught.value.item == item
        else:
            assert not self.buffer.sink.next_nowait(item).done
        await yield_to_loop(6)

    async def pull(self) -> None:
        number = next(self.numbers)
        self.pulls[number] = asyncio.ensure_future(anext(self.buffer.source))
        self.model.pull(number)
        await yield_to_loop(6)

    async def cancel_push(self) -> None:
        if self.pushes:
            item = self.rng.choice(list(self.pushes))
            push = self.pushes.pop(item)
            push.cancel()
            self.model.producers.remove(item)
            await yield_to_loop(6)
            assert push.cancelled()

    async def cancel_pull(self) -> None:
        if self.model.consumers:
            number = self.rng.choice(list(self.model.consumers))
            pull = self.pulls.pop(number)
            pull.cancel()
            self.model.consumers.remove(number)
            await yield_to_loop(6)
            assert pull.cancelled()

    @staticmethod
    def check_push(push: asyncio.Future[Any], item: Item, effect: str) -> None:
        assert push.done(), effect
        if effect == "refused":
            error = push.exception()
            assert isinstance(error, WouldBlock)
            assert error.item == item
        else:
            assert not push.result().done

    def check(self) -> None:
        model = self.model
        assert self.buffer.statistics() == model.statistics()
        assert len(self.buffer) == len(model.items)
        if model.items:
            assert self.buffer.peek() == model.next_item()
        else:
            with pytest.raises(WouldBlock):
                self.buffer.peek()
        for number in [number for number in self.pulls if number in model.received]:
            assert self.pulls.pop(number).result() == model.received[number]
        for item in [item for item in self.pushes if item not in model.producers]:
            self.check_push(self.pushes.pop(item), item, "accepted")
        assert list(self.pulls) == list(model.consumers)
        assert not any(future.done() for future in [*self.pulls.values(), *self.pushes.values()])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("maxsize", [1, 3, None])
@pytest.mark.parametrize("seed", range(2))
async def test_buffer_agrees_with_the_model(
    order: str, overflow: str, maxsize: int | None, seed: int
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    run = Run(rng, maxsize, overflow, order)
    steps = [run.push, run.push, run.push_now, run.pull, run.pull, run.cancel_push, run.cancel_pull]
    for _ in range(60):
        # Sometimes one side is faster for a while.
        step = rng.choice(rng.choice([steps, [run.push, run.push_now], [run.pull]]))
        await step()
        run.check()
    await end(run, rng.choice(["return_", "throw", "aclose"]))


async def end(run: Run, ending: str) -> None:
    """End the buffer; afterwards each item is in exactly one place and no operation waits."""
    buffer, model = run.buffer, run.model
    remaining = (
        sorted(model.items, key=lambda item: item[0])
        if model.order == "priority"
        else (model.items[:: -1 if model.order == "lifo" else 1])
    )
    error = KeyError("x")
    if ending == "return_":
        await buffer.sink.return_()
    elif ending == "throw":
        await buffer.sink.throw(error)
    else:
        await buffer.source.aclose()
    await yield_to_loop(6)
    for item, push in run.pushes.items():
        refused = push.exception()
        assert isinstance(refused, ClosedError)
        assert refused.item == item
    outcomes = await asyncio.gather(*run.pulls.values(), return_exceptions=True)
    if ending == "throw" and outcomes:
        assert outcomes.pop(outcomes.index(error)) is error
        error_left = False
    else:
        error_left = ending == "throw"
    end_error = ClosedError if ending == "aclose" else StopAsyncIteration
    assert [type(outcome) for outcome in outcomes] == [end_error] * len(outcomes)
    if ending == "aclose":
        remaining = []
    left: list[Item] = []
    while len(left) < len(remaining):
        left.append(await anext(buffer.source))
    assert left == remaining
    if error_left:
        with pytest.raises(KeyError) as caught:
            await anext(buffer.source)
        assert caught.value is error
    with pytest.raises(StopAsyncIteration):
        await anext(buffer.source)
    now = buffer.statistics()
    assert (now.size, now.waiting_consumers, now.waiting_producers) == (0, 0, 0)
    assert now.dropped == len(model.dropped)
    with pytest.raises(ClosedError):
        buffer.sink.next_nowait((0, 0))
