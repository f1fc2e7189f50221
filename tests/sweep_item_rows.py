"""Rows of operators that process one item after the other."""

from __future__ import annotations

import itertools
import operator
from typing import TYPE_CHECKING, Any

from headrace import (
    SKIP,
    CapacitySource,
    PullBufferObj,
    PullCallbackObj,
    PullCatchObj,
    PullDedupeObj,
    PullFilterObj,
    PullFlatMapObj,
    PullFlattenObj,
    PullInOrderObj,
    PullMapObj,
    PullMapPoolObj,
    PullObj,
    PullReduceObj,
    PullSkipObj,
    PullSkipWhileObj,
    PullTakeObj,
    PullTakeWhileObj,
    PullWindowObj,
)
from tests.support import wrong
from tests.sweep_sources import pausing
from tests.sweep_types import Row, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable


NESTED: tuple[list[int], ...] = ([0, 1], [], [2], [3, 4, 5])


def reject_some(n: int) -> int:
    if n % 3 == 1:
        raise LookupError(n)
    return n


def catching(source: PullObj[Any], substitute: Callable[[int], Any]) -> PullObj[Any]:
    """Handle the error of every third item; let other errors through."""

    def handler(error: Exception) -> Any:
        if isinstance(error, LookupError):
            return substitute(error.args[0])
        raise error

    return PullCatchObj(source.map(reject_some), handler)


def of_last(function: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    """Return a condition on a list: the function of its last item."""
    return lambda items: function(items[-1])


def split(items: list[int]) -> list[list[int]]:
    """Split into lists that end with a multiple of three."""
    parts: list[list[int]] = [[]]
    for n in items:
        parts[-1].append(n)
        if n % 3 == 0:
            parts.append([])
    return parts if parts[-1] else parts[:-1]


ITEM_ROWS = [
    Row(
        "map",
        lambda source, wrap: PullMapObj(source, wrap(lambda n: n * 10)),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n),
        bad=(
            (lambda: PullMapObj([1], wrong(3)), TypeError, r"transform must be .*got 3 \(int\)"),
            (lambda: PullMapObj(wrong(7), str), TypeError, r"source must be .*got 7 \(int\)"),
        ),
    ),
    Row(
        "concurrent map",
        lambda source, wrap: PullMapObj(source, wrap(lambda n: n * 10), concurrency=3),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n, concurrency=2),
        depth=2_000,
        bad=(
            (
                lambda: PullMapObj([1], str, concurrency=0),
                ValueError,
                r"concurrency must be at least 1, got 0 \(int\)",
            ),
            (
                lambda: PullMapObj([1], str, concurrency=wrong(1.5)),
                TypeError,
                r"concurrency must be .*got 1.5 \(float\)",
            ),
            (
                lambda: PullMapObj([1], str, concurrency=3, window=2),
                ValueError,
                r"window must be at least concurrency \(3\), got 2",
            ),
            (
                lambda: PullMapObj([1], wrong(3), concurrency=2),
                TypeError,
                r"transform must be .*got 3 \(int\)",
            ),
        ),
        calls="exact",
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "concurrent map, unordered",
        lambda source, wrap: PullMapObj(
            source, wrap(lambda n: n * 10), concurrency=3, ordered=False
        ),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n, concurrency=2, ordered=False),
        depth=2_000,
        calls="exact",
        ordered=False,
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "concurrent map by key",
        lambda source, wrap: PullMapObj(
            source, wrap(lambda n: n * 10), concurrency=3, partition_by=lambda n: n % 2
        ),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(
            lambda n: n, concurrency=2, partition_by=lambda _: 0, per_key=2
        ),
        depth=2_000,
        bad=(
            (
                lambda: PullMapObj([1], str, concurrency=2, partition_by=wrong(3)),
                TypeError,
                r"partition_by must be callable or None, got 3 \(int\)",
            ),
            (
                lambda: PullMapObj([1], str, concurrency=2, partition_by=str, per_key=3),
                ValueError,
                r"per_key must be at most concurrency \(2\), got 3",
            ),
        ),
        calls="exact",
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "concurrent map by key, unordered",
        lambda source, wrap: PullMapObj(
            source,
            wrap(lambda n: n * 10),
            concurrency=3,
            ordered=False,
            partition_by=lambda n: n % 2,
        ),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(
            lambda n: n, concurrency=2, ordered=False, partition_by=lambda n: n
        ),
        depth=2_000,
        calls="exact",
        ordered=False,
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "map under a capacity",
        lambda source, wrap: PullMapPoolObj(source, wrap(lambda n: n * 10), CapacitySource(3)),
        lambda items: [n * 10 for n in items],
        covers=(PullMapPoolObj,),
        identity=lambda stream: stream.map_pool(lambda n: n, CapacitySource(2), ordered=True),
        depth=1_000,
        bad=(
            (
                lambda: PullMapPoolObj([1], wrong(3), CapacitySource(2)),
                TypeError,
                r"fn must be callable, not 3 \(int\)",
            ),
            (
                lambda: PullMapPoolObj(wrong(7), str, CapacitySource(2)),
                TypeError,
                r"source must be .*got 7 \(int\)",
            ),
            (
                lambda: PullMapPoolObj([1], str, wrong("2")),
                TypeError,
                r"capacity must be a CapacitySource, such as CapacitySource\(20\), or a number of calls at once, got '2'",
            ),
        ),
        calls="exact",
        ordered=False,
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "map under a capacity, ordered",
        lambda source, wrap: PullMapPoolObj(
            source, wrap(lambda n: n * 10), CapacitySource(3), ordered=True
        ),
        lambda items: [n * 10 for n in items],
        covers=(PullMapPoolObj,),
        calls="exact",
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "map with on_cancel keep",
        lambda source, wrap: PullMapObj(source, wrap(lambda n: n * 10), on_cancel="keep"),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n, on_cancel="keep"),
        depth=2_000,
        bad=(
            (
                lambda: PullMapObj([1], str, on_cancel=wrong("drop")),
                ValueError,
                "on_cancel must be .*got 'drop'",
            ),
        ),
        calls="exact",
        restarts="at rest",
        owns_tasks=True,
    ),
    Row(
        "map, raw",
        lambda source, wrap: PullMapObj(source, wrap(lambda n: n * 10), raw=True),
        lambda items: [n * 10 for n in items],
        covers=(PullMapObj,),
        identity=lambda stream: stream.map(lambda n: n, raw=True),
        calls="none",
    ),
    Row(
        "tap",
        lambda source, wrap: PullCallbackObj(source, wrap(lambda n: n * 10)),
        lambda items: items,
        covers=(PullCallbackObj,),
        identity=lambda stream: stream.tap(bool),
        bad=(
            (lambda: PullCallbackObj([1]), TypeError, "callbacks must be .*got none"),
            (
                lambda: PullCallbackObj([1], print, wrong(3)),
                TypeError,
                r"callbacks\[1\] must be .*got 3 \(int\)",
            ),
            (lambda: PullCallbackObj(wrong(7), print), TypeError, r"source must be .*got 7"),
        ),
    ),
    Row(
        "several callbacks",
        lambda source, wrap: PullCallbackObj(
            source, wrap(lambda n: n), unwrapped(bool), wrap(lambda n: -n)
        ),
        lambda items: items,
        covers=(PullCallbackObj,),
    ),
    Row(
        "in_order",
        lambda source, wrap: PullInOrderObj(source, wrap(lambda n: n)),
        sorted,
        covers=(PullInOrderObj,),
        identity=lambda stream: stream.in_order(lambda n: n),
        bad=(
            (lambda: PullInOrderObj([1], wrong(3)), TypeError, r"index must be .*got 3 \(int\)"),
            (
                lambda: PullInOrderObj([1], int, maxsize=0),
                ValueError,
                "maxsize must be at least 1 .*got 0",
            ),
            (
                lambda: PullInOrderObj([1], int, start=wrong("0")),
                TypeError,
                r"start must be .*got '0' \(str\)",
            ),
            (lambda: PullInOrderObj(wrong(7), int), TypeError, r"source must be .*got 7 \(int\)"),
        ),
        items=(2, 0, 1, 5, 3, 4),
        ready=range(20_000),
    ),
    Row(
        "catch",
        lambda source, wrap: catching(source, wrap(lambda n: n * 100)),
        lambda items: [n * 100 if n % 3 == 1 else n for n in items],
        covers=(PullCatchObj,),
        identity=lambda stream: stream.catch(lambda _: SKIP),
        bad=(
            (lambda: PullCatchObj([1], wrong(3)), TypeError, r"handler must be .*got 3 \(int\)"),
            (lambda: PullCatchObj(wrong(7), str), TypeError, r"source must be .*got 7 \(int\)"),
        ),
    ),
    Row(
        "catch and skip",
        lambda source, wrap: catching(source, wrap(lambda _: SKIP)),
        lambda items: [n for n in items if n % 3 != 1],
        covers=(PullCatchObj,),
    ),
    Row(
        "filter",
        lambda source, wrap: PullFilterObj(source, wrap(lambda n: n % 3)),
        lambda items: [n for n in items if n % 3],
        covers=(PullFilterObj,),
        identity=lambda stream: stream.filter(lambda _: True),
        bad=(
            (lambda: PullFilterObj([1], wrong(3)), TypeError, r"predicate must be .*got 3 \(int\)"),
            (lambda: PullFilterObj(wrong(7), bool), TypeError, r"source must be .*got 7 \(int\)"),
        ),
    ),
    Row(
        "accumulate",
        lambda source, wrap: PullReduceObj(source, wrap(operator.add), 100),
        lambda items: list(itertools.accumulate(items, initial=100))[1:],
        covers=(PullReduceObj,),
        identity=lambda stream: stream.accumulate(lambda _, n: n, 0),
        bad=(
            (lambda: PullReduceObj([1], wrong(3)), TypeError, r"reducer must be .*got 3 \(int\)"),
            (lambda: PullReduceObj(wrong(7), max), TypeError, r"source must be .*got 7 \(int\)"),
        ),
    ),
    Row(
        "accumulate from the first item",
        lambda source, wrap: PullReduceObj(source, wrap(operator.add)),
        lambda items: list(itertools.accumulate(items)),
        covers=(PullReduceObj,),
        identity=lambda stream: stream.accumulate(lambda _, n: n),
    ),
    Row(
        "dedupe",
        lambda source, wrap: PullDedupeObj(source, key=wrap(lambda n: n // 2)),
        lambda items: list({n // 2: n for n in reversed(items)}.values())[::-1],
        covers=(PullDedupeObj,),
        identity=lambda stream: stream.dedupe(),
        bad=(
            (lambda: PullDedupeObj([1], key=wrong(3)), TypeError, r"key must be .*got 3 \(int\)"),
            (lambda: PullDedupeObj([1], maxsize=0), ValueError, r"maxsize must be .*got 0 \(int\)"),
            (
                lambda: PullDedupeObj([1], maxsize=2, consecutive=True),
                ValueError,
                "maxsize has no meaning with consecutive=True, got 2",
            ),
        ),
    ),
    Row(
        "dedupe consecutive",
        lambda source, _: PullDedupeObj(source, consecutive=True),
        lambda items: [n for n, _ in itertools.groupby(items)],
        covers=(PullDedupeObj,),
        identity=lambda stream: stream.dedupe(consecutive=True),
        items=(1, 1, 2, 1, 1, 1, 3),
        calls="none",
    ),
    Row(
        "take",
        lambda source, _: PullTakeObj(source, 4),
        lambda items: items[:4],
        covers=(PullTakeObj,),
        identity=lambda stream: stream.take(100),
        bad=(
            (lambda: PullTakeObj([1], -1), ValueError, r"size must be .*got -1 \(int\)"),
            (lambda: PullTakeObj([1], wrong(1.5)), TypeError, r"size must be .*got 1.5 \(float\)"),
        ),
        calls="none",
    ),
    Row(
        "skip",
        lambda source, _: PullSkipObj(source, 2),
        lambda items: items[2:],
        covers=(PullSkipObj,),
        identity=lambda stream: stream.skip(0),
        bad=(
            (lambda: PullSkipObj([1], -1), ValueError, r"size must be .*got -1 \(int\)"),
            (lambda: PullSkipObj([1], wrong("2")), TypeError, r"size must be .*got '2' \(str\)"),
        ),
        calls="none",
    ),
    Row(
        "take_while",
        lambda source, wrap: PullTakeWhileObj(source, wrap(lambda n: n < 4)),
        lambda items: list(itertools.takewhile(lambda n: n < 4, items)),
        covers=(PullTakeWhileObj,),
        identity=lambda stream: stream.take_while(lambda _: True),
        bad=(
            (
                lambda: PullTakeWhileObj([1], wrong(3)),
                TypeError,
                r"predicate must be .*got 3 \(int\)",
            ),
        ),
    ),
    Row(
        "skip_while",
        lambda source, wrap: PullSkipWhileObj(source, wrap(lambda n: n < 2)),
        lambda items: list(itertools.dropwhile(lambda n: n < 2, items)),
        covers=(PullSkipWhileObj,),
        identity=lambda stream: stream.skip_while(lambda _: False),
        bad=(
            (
                lambda: PullSkipWhileObj([1], wrong(3)),
                TypeError,
                r"predicate must be .*got 3 \(int\)",
            ),
        ),
    ),
    Row(
        "flatten",
        lambda source, _: PullFlattenObj(source),
        lambda items: list(itertools.chain.from_iterable(items)),
        covers=(PullFlattenObj,),
        identity=lambda stream: stream.map(lambda n: (n,)).flatten(),
        bad=((lambda: PullFlattenObj(wrong(3)), TypeError, r"source must be .*got 3 \(int\)"),),
        items=NESTED,
        calls="none",
    ),
    Row(
        "flatten of waiting sources",
        lambda source, _: PullFlattenObj(source.map(pausing)),
        lambda items: list(itertools.chain.from_iterable(items)),
        covers=(PullFlattenObj,),
        items=NESTED,
        calls="none",
    ),
    Row(
        "flat_map",
        lambda source, wrap: PullFlatMapObj(source, wrap(lambda n: [n] * (n % 3))),
        lambda items: [n for n in items for _ in range(n % 3)],
        covers=(PullFlatMapObj,),
        identity=lambda stream: stream.flat_map(lambda n: (n,)),
        bad=(
            (
                lambda: PullFlatMapObj([1], wrong(3)),
                TypeError,
                r"transform must be .*got 3 \(int\)",
            ),
        ),
    ),
    Row(
        "batch",
        lambda source, _: PullWindowObj(source, 4),
        lambda items: [items[at : at + 4] for at in range(0, len(items), 4)],
        covers=(PullWindowObj,),
        identity=lambda stream: stream.batch(1).flatten(),
        bad=(
            (lambda: PullWindowObj([1], 0), ValueError, r"size must be .*got 0 \(int\)"),
            (lambda: PullWindowObj([1], wrong("2")), TypeError, r"size must be .*got '2' \(str\)"),
            (
                lambda: PullWindowObj([1], 2, partial=wrong("no")),
                ValueError,
                "partial must be .*got 'no'",
            ),
        ),
        calls="none",
    ),
    Row(
        "batch_until",
        lambda source, wrap: PullBufferObj(source, of_last(wrap(lambda n: n % 3 == 0))),
        split,
        covers=(PullBufferObj,),
        identity=lambda stream: stream.batch_until(lambda _: True).flatten(),
        bad=(
            (
                lambda: PullBufferObj([1], wrong(3)),
                TypeError,
                r"condition must be .*got 3 \(int\)",
            ),
            (
                lambda: PullBufferObj([1], bool, partial=wrong("no")),
                ValueError,
                "partial must be .*got 'no'",
            ),
        ),
    ),
]
