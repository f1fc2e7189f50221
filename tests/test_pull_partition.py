"""`map` with `partition_by`, by law: order and concurrency per key."""

from __future__ import annotations

import asyncio
import gc
import heapq
import itertools
import random
from collections import Counter, defaultdict
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullMapObj, SourceIterObj
from tests.concurrent_sources import outcomes_of
from tests.support import Gate, collect, until, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

BOTH_ORDERS = pytest.mark.parametrize("ordered", [True, False])


def digit(n: int) -> int:
    return n % 10


class Log:
    """A callable that records its calls, and checks the limits of the keys at each call.

    Args:
        seed: Of the durations of the calls, which are on the loop's clock. Some items are called without an await, and some fail.
        per_key: The maximum number of running calls of a key.
    """

    def __init__(self, seed: int, per_key: int) -> None:
        self.rng = random.Random(seed)
        self.per_key = per_key
        self.called: dict[int, list[int]] = defaultdict(list)
        self.running: Counter[int] = Counter()
        self.most_running = 0
        self.most_of_a_key = 0

    def __call__(self, n: int) -> Any:
        self.called[digit(n)].append(n)
        assert self.running[digit(n)] < self.per_key
        if n % 11 == 3:
            raise ValueError(n)
        return n if n % 7 == 2 else self.work(n)

    async def work(self, n: int) -> int:
        self.running[digit(n)] += 1
        self.most_running = max(self.most_running, self.running.total())
        self.most_of_a_key = max(self.most_of_a_key, *self.running.values())
        try:
            await asyncio.sleep(self.rng.choice((0, 0.001, self.rng.random())))
            if n % 13 == 5:
                raise ValueError(n)
            return n
        finally:
            self.running[digit(n)] -= 1


@pytest.mark.virtual
@BOTH_ORDERS
@pytest.mark.parametrize("per_key", [1, 3])
@pytest.mark.parametrize("seed", range(4))
async def test_law_7_random_calls_keep_the_order_of_their_key(
    ordered: bool, per_key: int, seed: int
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    # Keys of unequal frequency: about a third of the items has the key 0.
    items = list(itertools.accumulate(rng.choices((1, 4, 10), k=600)))
    pulled_count = delivered = most_held = 0

    async def source() -> AsyncIterator[int]:
        nonlocal pulled_count, most_held
        for pulled_count, item in enumerate(items, 1):
            most_held = max(most_held, pulled_count - delivered)
            if rng.random() < 0.2:
                await asyncio.sleep(rng.random() / 10)
            yield item

    async def pause() -> None:
        nonlocal delivered
        delivered += 1
        if rng.random() < 0.05:
            await asyncio.sleep(rng.random() * 3)

    log = Log(seed, per_key)
    stream = PullMapObj(
        source(),
        log,
        concurrency=6,
        window=15,
        ordered=ordered,
        partition_by=digit,
        per_key=per_key,
    )
    outcomes = await outcomes_of(stream, pause)
    assert sorted(outcomes) == items
    for key, called in log.called.items():
        expected = [n for n in items if digit(n) == key]
        assert called == expected
        if per_key == 1:
            assert [n for n in outcomes if digit(n) == key] == expected
    assert (outcomes == items) == ordered
    assert (log.most_running, log.most_of_a_key, most_held) == (6, per_key, 15)


class Model:
    """The reference: a simulation of calls, each of which starts as early as the rules allow.

    Args:
        rng: Of the keys and the durations.
        ordered: Whether an item is delivered after those before it.
    """

    COUNT, CONCURRENCY, WINDOW = 120, 4, 9

    def __init__(self, rng: random.Random, *, ordered: bool, per_key: int) -> None:
        self.ordered = ordered
        self.per_key = per_key
        self.keys = [rng.choice("aaabbcdefghij") for _ in range(self.COUNT)]
        self.delays = [rng.uniform(0.01, 0.3) * rng.choice((0.01, 1)) for _ in range(self.COUNT)]
        self.durations = [rng.uniform(0.5, 2) for _ in range(self.COUNT)]
        self.started: dict[int, float] = {}
        self.waiting: list[int] = []
        self.busy: Counter[str] = Counter()
        self.done: set[int] = set()
        self.delivered = self.pulled = 0
        self.is_pulling = False

    def starts(self) -> dict[int, float]:
        """Return the time at which each call starts."""
        now = 0.0
        events: list[tuple[float, str, int]] = []
        while True:
            for n in list(self.waiting):
                key = self.keys[n]
                if self.busy.total() < self.CONCURRENCY and self.busy[key] < self.per_key:
                    self.waiting.remove(n)
                    self.busy[key] += 1
                    self.started[n] = now
                    heapq.heappush(events, (now + self.durations[n], "ends", n))
            held = self.pulled - self.delivered
            is_free = self.busy.total() < self.CONCURRENCY and held < self.WINDOW
            if is_free and not self.is_pulling and self.pulled < self.COUNT:
                self.is_pulling = True
                heapq.heappush(events, (now + self.delays[self.pulled], "arrives", self.pulled))
            if not events:
                return self.started
            now, event, n = heapq.heappop(events)
            if event == "arrives":
                self.is_pulling = False
                self.pulled += 1
                self.waiting.append(n)
                continue
            self.busy[self.keys[n]] -= 1
            self.done.add(n)
            while self.delivered in self.done if self.ordered else self.delivered < len(self.done):
                self.delivered += 1


@pytest.mark.virtual
@BOTH_ORDERS
@pytest.mark.parametrize("per_key", [1, 2])
@pytest.mark.parametrize("seed", range(10))
async def test_law_7_each_call_starts_when_the_model_says(
    ordered: bool, per_key: int, seed: int
) -> None:
    print("seed", seed)
    model = Model(random.Random(seed), ordered=ordered, per_key=per_key)
    loop = asyncio.get_running_loop()
    began = loop.time()
    started: dict[int, float] = {}

    async def source() -> AsyncIterator[int]:
        for n in range(model.COUNT):
            await asyncio.sleep(model.delays[n])
            yield n

    async def work(n: int) -> int:
        started[n] = loop.time() - began
        await asyncio.sleep(model.durations[n])
        return n

    stream = PullMapObj(
        source(),
        work,
        concurrency=model.CONCURRENCY,
        window=model.WINDOW,
        ordered=ordered,
        partition_by=model.keys.__getitem__,
        per_key=per_key,
    )
    assert sorted(await collect(stream)) == list(range(model.COUNT))
    expected = model.starts()
    # A clock that adds up delays differs from the model by rounding errors.
    assert {n: round(at, 6) for n, at in started.items()} == {
        n: round(at, 6) for n, at in expected.items()
    }


@BOTH_ORDERS
async def test_law_6_source_is_not_pulled_beyond_the_window(ordered: bool) -> None:
    gate = Gate()
    pulled: list[int] = []

    def source() -> Iterator[int]:
        for n in itertools.chain([0] * 20, range(1, 5)):
            pulled.append(n)
            yield n

    stream = PullMapObj(
        source(), gate, concurrency=3, window=7, ordered=ordered, partition_by=lambda n: n
    )
    async with stream:
        pull = asyncio.ensure_future(anext(stream))
        await yield_to_loop(20)
        # One call runs, and the other items wait for their key.
        assert (gate.calls, pulled) == ([0], [0] * 7)
        assert repr(stream).startswith(
            "<PullMapObj: 1 of 3 calls run, 6 waiting for their key, calls Gate"
        )
        stream.window_size = 9
        await yield_to_loop(20)
        assert (gate.calls, pulled) == ([0], [0] * 9)
        gate.open.set()
        assert await pull == 0
        assert sorted(await collect(stream)) == [0] * 19 + [10, 20, 30, 40]


@pytest.mark.virtual
async def test_free_call_is_given_to_the_oldest_item() -> None:
    called: list[str] = []

    async def work(item: str) -> str:
        called.append(item)
        await asyncio.sleep(int(item[1]))
        return item

    items = ["a9", "b3", "a1", "a2", "b1", "b2", "c1"]
    stream = SourceIterObj(items).map(
        work, concurrency=2, window=9, partition_by=lambda item: item[0]
    )
    assert await collect(stream) == items
    # While both calls run, the source is not pulled. `b1` is then the first item whose key is free.
    assert called == ["a9", "b3", "b1", "b2", "c1", "a1", "a2"]


@pytest.mark.virtual
@BOTH_ORDERS
async def test_oldest_item_goes_first_when_calls_are_scarce(ordered: bool) -> None:
    called: list[tuple[float, str]] = []
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def work(item: str) -> str:
        called.append((loop.time() - began, item))
        await asyncio.sleep(int(item[1]))
        return item

    items = ["a2", "b1", "b2", "a1", "b3", "c9"]
    stream = PullMapObj(
        items, work, concurrency=3, window=5, ordered=ordered, partition_by=lambda item: item[0]
    )
    async with stream:
        pull = asyncio.ensure_future(anext(stream))
        await until(lambda: len(called) == 2)
        # From now on, the keys share one call.
        stream.concurrency = 1
        assert await pull in items
        assert len(await collect(stream)) == 5
    assert called == [(0, "a2"), (0, "b1"), (2, "b2"), (4, "a1"), (5, "b3"), (8, "c9")]


@BOTH_ORDERS
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.loops("asyncio")
async def test_law_6_idle_key_is_forgotten(ordered: bool, kind: str) -> None:
    async def slow(n: int) -> int:
        if n % 1_000 == 0:
            await asyncio.sleep(0)
        return n

    count = 1_000_000 if kind == "sync" else 100_000
    transform: Callable[[int], Any] = (lambda n: n) if kind == "sync" else slow
    stream = PullMapObj(
        range(count), transform, concurrency=8, ordered=ordered, partition_by=lambda n: (n,)
    )
    keys = next(
        found
        for found in gc.get_referents(wrong(stream)._calls)
        if type(found) is dict and not found
    )
    most = number = 0
    async for _ in stream:
        number += 1
        most = max(most, len(keys))
    assert (number, len(keys)) == (count, 0)
    assert most <= 16


async def test_call_has_the_context_in_which_its_item_was_pulled() -> None:
    variable: ContextVar[int] = ContextVar("variable", default=-1)
    tasks: set[asyncio.Task[Any] | None] = set()

    async def source() -> AsyncIterator[int]:
        for n in range(6):
            variable.set(n)
            yield n

    async def work(n: int) -> tuple[int, int]:
        tasks.add(asyncio.current_task())
        await yield_to_loop(2)
        before = variable.get()
        variable.set(100)
        return n, before

    stream = PullMapObj(source(), work, concurrency=3, window=6, partition_by=lambda n: n // 3)
    assert await collect(stream) == [(n, n) for n in range(6)]
    assert len(tasks) == 6


@pytest.mark.virtual
async def test_law_13_key_and_limit_are_live() -> None:
    running = most = 0

    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return n

    stream = SourceIterObj(range(100)).map(work, concurrency=8, window=20, partition_by=lambda _: 0)
    assert (await anext(stream), most, stream.per_key) == (0, 1, 1)
    stream.per_key = 3
    # At once, and not only when a call ends.
    await until(lambda: running == 3)
    assert [await anext(stream) for _ in range(19)] == list(range(1, 20))
    assert (most, stream.per_key) == (3, 3)
    stream.partition_by = lambda n: n
    assert [await anext(stream) for _ in range(60)] == list(range(20, 80))
    assert most == 8
    stream.partition_by = lambda _: 0
    stream.per_key = 1
    assert [await anext(stream) for _ in range(19)] == list(range(80, 99))
    most = 0
    assert await collect(stream) == [99]
    with pytest.raises(TypeError, match=r"partition_by must be callable, got 3 \(int\)"):
        stream.partition_by = wrong(3)
    with pytest.raises(ValueError, match=r"per_key must be at most concurrency \(8\), got 9"):
        stream.per_key = 9
    stream.per_key = 2
    with pytest.raises(ValueError, match=r"per_key must be at most concurrency \(1\), got 2"):
        stream.concurrency = 1
    for plain in (SourceIterObj([1]).map(str, concurrency=2), SourceIterObj([1]).map(str)):
        assert (plain.partition_by, plain.per_key) == (None, 1)
        with pytest.raises(AttributeError, match="make it with"):
            plain.per_key = 2
        with pytest.raises(AttributeError, match="make it with"):
            plain.partition_by = wrong(str)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"partition_by": 3}, TypeError, r"partition_by must be callable or None, got 3 \(int\)"),
        (
            {"partition_by": str, "per_key": 0},
            ValueError,
            r"per_key must be at least 1, got 0 \(int\)",
        ),
        ({"partition_by": str, "per_key": 1.5}, TypeError, r"per_key must be an integer, got 1.5"),
        (
            {"partition_by": str, "per_key": True},
            TypeError,
            r"per_key must be an integer, got True",
        ),
        (
            {"partition_by": str, "per_key": 5},
            ValueError,
            r"per_key must be at most concurrency \(4\), got 5 \(int\)",
        ),
        (
            {"per_key": 2},
            ValueError,
            r"per_key has no meaning without partition_by, got 2 \(int\); leave it out, or add partition_by",
        ),
        (
            {"partition_by": str, "concurrency": 1, "per_key": 2},
            ValueError,
            r"per_key must be at most concurrency \(1\), got 2 \(int\)",
        ),
    ],
)
def test_law_14_bad_input_is_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    options = {"concurrency": 4, **options}
    with pytest.raises(kind, match=message):
        PullMapObj([1], str, **options)
    with pytest.raises(kind, match=message):
        SourceIterObj([1]).map(str, **options)


async def test_concurrency_1_is_in_order_of_all_keys() -> None:
    for options in ({}, {"on_cancel": "keep"}):
        called: list[int] = []

        async def work(n: int, called: list[int] = called) -> int:
            called.append(n)
            await asyncio.sleep(0)
            return n

        stream = PullMapObj(range(5), work, concurrency=1, partition_by=digit, **wrong(options))
        assert await collect(stream) == called == list(range(5))
