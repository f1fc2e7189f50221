"""The types that a checker infers for pull streams, without annotations by the user. Checked, never run."""

from __future__ import annotations

import asyncio
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Never, TypeVar, assert_type

from headrace import (
    SKIP,
    IteratorResult,
    PullBufferObj,
    PullCallbackObj,
    PullCatchObj,
    PullDedupeObj,
    PullEagerObj,
    PullFilterObj,
    PullFlatMapObj,
    PullFlattenObj,
    PullInOrderObj,
    PullLabeledRaceObj,
    PullLabeledRaceRobinObj,
    PullLabeledRoundRobinObj,
    PullLabeledZipObj,
    PullMapObj,
    PullObj,
    PullObj1To1Link,
    PullRaceObj,
    PullRaceRobinObj,
    PullReduceObj,
    PullSkipObj,
    PullSkipWhileObj,
    PullTakeObj,
    PullTakeWhileObj,
    PullThrottleObj,
    PullTimeoutObj,
    PullTimerObj,
    PullWindowObj,
    PullWindowTimeoutObj,
    PushPullBufferObj,
    Skip,
    SourceBufferObj,
    SourceCacheObj,
    SourceIterObj,
    SourceLinesObj,
    SourceObj,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

T = TypeVar("T")


async def slow_length(text: str) -> int:
    await asyncio.sleep(0)
    return len(text)


async def slow_add(total: float, item: int) -> float:
    await asyncio.sleep(0)
    return total + item


async def slow_sum(total: int, item: int) -> int:
    await asyncio.sleep(0)
    return total + item


def future_length(text: str) -> asyncio.Future[int]:
    return asyncio.ensure_future(slow_length(text))


def future_add(total: float, item: int) -> asyncio.Future[float]:
    return asyncio.ensure_future(slow_add(total, item))


def words(line: str) -> list[str]:
    return line.split()


async def words_later(line: str) -> list[str]:
    return line.split()


def each_word(line: str) -> Iterator[str]:
    yield from line.split()


async def each_word_later(line: str) -> AsyncIterator[str]:
    for word in line.split():
        yield word


async def numbers() -> AsyncIterator[int]:
    yield 1


async def sources() -> None:
    """Any iterable is a source; the stream has the type of its items."""
    assert_type(SourceIterObj([1, 2]), SourceIterObj[int])
    assert_type(SourceIterObj("ab"), SourceIterObj[str])
    assert_type(SourceIterObj(range(3)), SourceIterObj[int])
    assert_type(SourceIterObj(numbers()), SourceIterObj[int])
    assert_type(SourceIterObj({"a": 1}.items()), SourceIterObj[tuple[str, int]])
    assert_type(SourceBufferObj(["a"]), SourceBufferObj[str])
    assert_type(SourceBufferObj(["a"], mode="lifo"), SourceBufferObj[str])
    assert_type(SourceBufferObj(["a"]).buffer.popleft(), str)
    assert_type(SourceBufferObj(["a"]).peek(), str)
    assert_type(SourceCacheObj(1), SourceCacheObj[int])
    assert_type(SourceCacheObj(1).value, int)
    assert_type(await anext(SourceCacheObj(1)), int)
    assert_type(await anext(SourceLinesObj(Path("a"))), str)
    assert_type(SourceLinesObj("a").map(len), PullMapObj[str, int])
    assert_type(await anext(PullTimerObj(0.5, count=3)), int)
    queue: PushPullBufferObj[bytes] = PushPullBufferObj()
    assert_type(await anext(queue.source), bytes)
    assert_type(PullMapObj([1], str), PullMapObj[int, str])
    assert_type(PullMapObj(numbers(), str), PullMapObj[int, str])
    assert_type(PullMapObj(SourceIterObj([1]), str), PullMapObj[int, str])


async def iteration() -> None:
    """Both protocols return the type of the items."""
    stream = SourceIterObj([1])
    async for item in stream:
        assert_type(item, int)
    assert_type(await anext(stream), int)
    assert_type([item async for item in stream], list[int])
    result = await stream.next()
    assert_type(result, IteratorResult[int])
    assert_type(result.value, int)
    async with stream.map(str) as opened:
        assert_type(opened, PullMapObj[int, str])


async def classes() -> None:
    """Classes infer the same types as methods."""
    assert_type(PullMapObj(["a"], len), PullMapObj[str, int])
    assert_type(PullMapObj(["a"], slow_length), PullMapObj[str, int])
    assert_type(PullFilterObj(["a"], str.isupper), PullFilterObj[str])
    assert_type(PullDedupeObj(["a"], key=len), PullDedupeObj[str])
    assert_type(PullReduceObj([1], slow_add, 0.5), PullReduceObj[int, float])
    assert_type(PullReduceObj([1], operator.add, 0), PullReduceObj[int, int])
    assert_type(PullTakeObj(["a"], 1), PullTakeObj[str])
    assert_type(PullSkipObj(["a"], 1), PullSkipObj[str])
    assert_type(PullTakeWhileObj(["a"], str.isupper), PullTakeWhileObj[str])
    assert_type(PullSkipWhileObj(["a"], str.isupper), PullSkipWhileObj[str])
    assert_type(PullFlattenObj([[1], [2]]), PullFlattenObj[int])
    assert_type(PullFlattenObj([numbers()]), PullFlattenObj[int])
    assert_type(PullFlatMapObj(["a b"], words), PullFlatMapObj[str, str])
    assert_type(PullFlatMapObj(["a b"], words_later), PullFlatMapObj[str, str])
    assert_type(PullFlatMapObj(["a b"], each_word), PullFlatMapObj[str, str])
    assert_type(PullFlatMapObj(["a b"], each_word_later), PullFlatMapObj[str, str])
    assert_type(PullWindowObj([1], 2), PullWindowObj[int])
    assert_type(await anext(PullWindowObj([1], 2)), list[int])


async def methods() -> None:
    """A pipeline of ten operators with sync and async callables has the type of its output."""
    stream = (
        SourceIterObj(["a b", "c"])
        .filter(lambda line: line.isascii())
        .skip_while(lambda line: not line)
        .flat_map(lambda line: line.split())
        .dedupe(key=len)
        .map(slow_length)
        .map(lambda length: length + 1)
        .skip(1)
        .accumulate(slow_add, 0.5)
        .take(10)
        .take_while(lambda total: total < 100.0)
    )
    assert_type(stream, PullTakeWhileObj[float])
    assert_type(await anext(stream), float)
    batches = stream.map(str).batch(3)
    assert_type(await anext(batches), list[str])
    assert_type(await anext(batches.flatten()), str)
    assert_type(await anext(batches.flatten().map(slow_length)), int)


async def batch_length(batch: list[str]) -> int:
    await asyncio.sleep(0)
    return len(batch)


def zero(_: Exception) -> int:
    return 0


async def zero_later(_: Exception) -> int:
    return 0


def zero_or_skip(error: Exception) -> int | Skip:
    return SKIP if isinstance(error, ValueError) else 0


async def skip_later(_: Exception) -> Skip:
    return SKIP


def zero_of_item(_: Exception, item: str) -> int:
    return len(item)


async def skip_item_later(_: Exception, item: object) -> Skip:
    return SKIP


async def methods_with_options() -> None:
    """So does one with concurrent calls, timeouts and error handlers."""
    stream = (
        SourceLinesObj("lines")
        .map(str.strip)
        .tap(len, slow_length)
        .throttle(100, per=60, burst=10)
        .batch(8, 0.5)
        .map(batch_length, concurrency=4)
        .catch(lambda _: SKIP)
        .timeout(30)
        .prefetch(2)
        .batch_until(lambda lengths: sum(lengths) < 8)
    )
    assert_type(stream, PullBufferObj[int])
    assert_type(await anext(stream), list[int])
    first, second = stream.flatten().tee(2)
    assert_type(first, PullObj[int])
    assert_type(await second.map(str).collect(), list[str])


async def classes_with_options() -> None:
    """So do their classes."""
    assert_type(PullBufferObj(["a"], len), PullBufferObj[str])
    assert_type(await anext(PullBufferObj(["a"], len)), list[str])
    assert_type(PullCallbackObj(["a"], len, slow_length), PullCallbackObj[str])
    assert_type(PullInOrderObj(["a"], len, start=1, maxsize=3), PullInOrderObj[str])
    assert_type(SourceIterObj(["a"]).in_order(slow_length), PullInOrderObj[str])
    assert_type(PullEagerObj(numbers(), 3), PullEagerObj[int])
    assert_type(PullTimeoutObj(["a"], 1.5, on_timeout="skip"), PullTimeoutObj[str])
    assert_type(PullWindowTimeoutObj(["a"], 3, 0.5), PullWindowTimeoutObj[str])
    assert_type(await anext(PullWindowTimeoutObj(["a"], 3, 0.5)), list[str])
    assert_type(PullThrottleObj(["a"], 10), PullThrottleObj[str])
    assert_type(PullMapObj(["a"], slow_length, concurrency=3, ordered=False), PullMapObj[str, int])
    assert_type(PullMapObj(["a"], slow_length, on_cancel="keep"), PullMapObj[str, int])
    lines = SourceIterObj(["a"])
    assert_type(lines.map(len, concurrency=3), PullMapObj[str, int])
    assert_type(lines.map(slow_length, concurrency=3, window=9), PullMapObj[str, int])
    assert_type(lines.map(slow_length, concurrency=3, partition_by=len), PullMapObj[str, int])
    by_key = PullMapObj(["a"], len, concurrency=3, partition_by=str.lower, per_key=2)
    assert_type(by_key, PullMapObj[str, int])
    assert_type(by_key.per_key, int)
    assert_type(await anext(lines.map(slow_length, on_cancel="keep")), int)
    assert_type(lines.map(future_length, raw=True), PullMapObj[str, asyncio.Future[int]])
    assert_type(lines.describe(), str)
    assert_type(lines.describe(format="mermaid"), str)
    (branch,) = lines.tee(1, maxsize=3, overflow="error")
    assert_type(branch, PullObj[str])


async def labels() -> None:
    """Labels keep their type, from a class or a method."""
    words, others = SourceIterObj(["a"]), {"b": [1]}
    assert_type(PullLabeledRaceObj({"a": [1], "b": [2]}), PullLabeledRaceObj[str, int])
    assert_type(words.merge([1]), PullRaceObj[str | int])
    assert_type(words.merge([1], fair=True), PullRaceRobinObj[str | int])
    assert_type(words.batch(2), PullWindowObj[str])
    assert_type(words.batch(2, 0.5), PullWindowTimeoutObj[str])
    assert_type(words.merge_labeled("a", others), PullLabeledRaceObj[str, str | int])
    assert_type(
        words.merge_labeled("a", others, fair=True), PullLabeledRaceRobinObj[str, str | int]
    )
    assert_type(words.round_robin_labeled("a", others), PullLabeledRoundRobinObj[str, str | int])
    assert_type(words.zip_labeled("a", others, strict=True), PullLabeledZipObj[str, str | int])
    assert_type(await anext(words.merge_labeled("a", others)), tuple[str, str | int])
    rows = words.zip_labeled(0, {1: ["b"]})
    assert_type(await anext(rows), tuple[tuple[int, str], ...])


async def errors() -> None:
    """The handler's result is one of the item types, except `SKIP`."""
    lines = SourceIterObj(["a"])
    assert_type(lines.catch(zero), PullCatchObj[str, int])
    assert_type(lines.catch(zero_later), PullCatchObj[str, int])
    assert_type(lines.catch(zero_or_skip), PullCatchObj[str, int])
    assert_type(lines.catch(skip_later), PullCatchObj[str, Never])
    assert_type(await anext(lines.catch(zero_or_skip)), str | int)
    assert_type(await anext(lines.catch(lambda _: SKIP)), str)
    assert_type(PullCatchObj(["a"], zero), PullCatchObj[str, int])
    # A handler of two arguments gets the item.
    assert_type(lines.catch(zero_of_item), PullCatchObj[str, int])
    assert_type(lines.catch(skip_item_later), PullCatchObj[str, Never])
    assert_type(lines.catch(lambda error, _: str(error)), PullCatchObj[str, str])
    assert_type(PullCatchObj(["a"], zero_of_item), PullCatchObj[str, int])
    assert_type(PullCatchObj(["a"], skip_item_later), PullCatchObj[str, Never])


async def terminals() -> None:
    """Terminals return the type of the items."""
    lengths = SourceIterObj(["a"]).map(len)
    assert_type(await lengths.collect(), list[int])
    assert_type(await lengths.count(), int)
    assert_type(await lengths.first(), int)
    assert_type(await lengths.first(None), int | None)
    assert_type(await lengths.reduce(max), int)
    assert_type(await lengths.reduce(slow_sum), int)
    assert_type(await lengths.reduce(operator.add, 0), int)
    assert_type(await lengths.reduce(lambda total, length: total + length), int)
    assert_type(await lengths.reduce(future_add, 0.5), float)
    assert_type(lengths.accumulate(lambda total, length: total + length), PullReduceObj[int, int])
    assert_type(lengths.accumulate(slow_sum), PullReduceObj[int, int])
    assert_type(PullReduceObj([1], slow_sum), PullReduceObj[int, int])
    assert_type(await lengths.reduce(slow_add, 0.5), float)
    await lengths.for_each(print)


async def callables() -> None:
    """Callables of every kind."""
    lines = SourceIterObj(["a b"])
    assert_type(lines.map(len), PullMapObj[str, int])
    assert_type(lines.map(str.upper), PullMapObj[str, str])
    assert_type(lines.map(lambda line: (line, len(line))), PullMapObj[str, tuple[str, int]])
    assert_type(lines.map(slow_length), PullMapObj[str, int])
    assert_type(lines.flat_map(words), PullFlatMapObj[str, str])
    assert_type(lines.flat_map(words_later), PullFlatMapObj[str, str])
    assert_type(lines.flat_map(each_word), PullFlatMapObj[str, str])
    assert_type(lines.flat_map(each_word_later), PullFlatMapObj[str, str])
    assert_type(lines.flat_map(lambda line: [len(line)]), PullFlatMapObj[str, int])
    assert_type(lines.map(future_length), PullMapObj[str, int])
    assert_type(PullMapObj(["a"], future_length), PullMapObj[str, int])
    lengths = lines.map(len)
    assert_type(lengths.accumulate(future_add, 0.5), PullReduceObj[int, float])
    assert_type(PullReduceObj([1], future_add, 0.5), PullReduceObj[int, float])
    assert_type(lengths.accumulate(lambda total, n: total + n, 0), PullReduceObj[int, int])
    assert_type(lengths.accumulate(slow_add, 0.5), PullReduceObj[int, float])
    assert_type(lengths.filter(None.__eq__), PullFilterObj[int])


async def flattening() -> None:
    """Sync and async iterables are flattened to their items."""
    assert_type(SourceIterObj([[1], [2]]).flatten(), PullFlattenObj[int])
    assert_type(SourceIterObj([{1: "a"}]).flatten(), PullFlattenObj[int])
    assert_type(SourceIterObj(["ab"]).flatten(), PullFlattenObj[str])
    assert_type(SourceIterObj([numbers()]).flatten(), PullFlattenObj[int])
    assert_type(SourceIterObj([1]).batch(2).flatten(), PullFlattenObj[int])
    assert_type(SourceIterObj([1]).batch(2).batch(2).flatten(), PullFlattenObj[list[int]])
    SourceIterObj([1]).flatten()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


class Counter(SourceObj[int]):
    """A user-defined source."""

    async def pull_impl(self) -> AsyncIterator[int]:
        yield 1


class Pairs(PullObj1To1Link[T, tuple[T, T]]):
    """A user-defined operator."""

    async def pull_impl(self) -> AsyncIterator[tuple[T, T]]:
        async for item in self.source:
            yield item, item


class Always(PullObj[str]):
    """A user-defined stream that implements `next`."""

    async def next(self) -> IteratorResult[str]:
        return IteratorResult("again", False)


class Logged(PullMapObj[str, int]):
    """A subclass of a stock operator."""

    async def pull_impl(self) -> AsyncIterator[int]:
        async for item in super().pull_impl():
            assert_type(item, int)
            yield item


def opaque(stream: PullObj[object]) -> PullObj[object]:
    """Accept a stream of any type: streams are covariant."""
    return stream


async def subclasses() -> None:
    """User-defined classes work in pipelines like stock ones."""
    assert_type(await anext(Counter()), int)
    assert_type(await anext(Pairs(Counter()).map(lambda pair: pair[0] + pair[1])), int)
    assert_type(Pairs(["a"]), Pairs[str])
    assert_type(Pairs(["a"]).source, PullObj[str])
    assert_type((await Always().next()).value, str)
    assert_type(Always().map(len), PullMapObj[str, int])
    assert_type(await anext(Logged(["a"], len)), int)
    wider: PullObj[object] = opaque(Counter())
    assert_type(await anext(wider), object)
