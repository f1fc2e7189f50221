"""Guarantee 13, over every pull operator: attributes that can be set while a stream runs."""

from __future__ import annotations

import asyncio
import operator
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from headrace import SKIP, PullObj, PullTimerObj, SourceIterObj
from tests.sweep_item_rows import reject_some
from tests.sweep_tables import as_params

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Swap:
    """An attribute that is replaced while the stream runs."""

    name: str
    build: Callable[[PullObj[Any]], PullObj[Any]]
    attribute: str
    value: Any
    expected: list[Any]
    _: KW_ONLY
    pulled_before: int = 2
    """How many items are pulled before that."""
    items: Any = range(6)
    pause: float = 0
    """How long the consumer sleeps after each item."""
    timed: Literal["in", "out"] | None = None
    """Whether each item is paired with its time, before or after the operator."""


async def sleep_one(n: int) -> int:
    await asyncio.sleep(1)
    return n


SWAPS = [
    Swap(
        "transform of map",
        lambda stream: stream.map(lambda n: n * 10),
        "transform",
        lambda n: n + 100,
        [0, 10, 102, 103, 104, 105],
    ),
    Swap(
        "transform of map, raw",
        lambda stream: stream.map(lambda n: n * 10, raw=True),
        "transform",
        lambda n: n + 100,
        [0, 10, 102, 103, 104, 105],
    ),
    Swap(
        "transform of map with on_cancel keep",
        lambda stream: stream.map(lambda n: n * 10, on_cancel="keep"),
        "transform",
        lambda n: n + 100,
        [0, 10, 102, 103, 104, 105],
    ),
    Swap(
        "concurrency of map",
        lambda stream: stream.map(sleep_one, concurrency=2, window=4),
        "concurrency",
        4,
        [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2)],
        timed="out",
    ),
    Swap(
        "partition_by of map",
        lambda stream: stream.map(sleep_one, concurrency=2, window=2, partition_by=lambda _: 0),
        "partition_by",
        lambda n: n,
        # The item 3 has been pulled.
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4), (5, 5)],
        timed="out",
    ),
    Swap(
        "per_key of map",
        lambda stream: stream.map(sleep_one, concurrency=2, window=2, partition_by=lambda _: 0),
        "per_key",
        2,
        [(0, 1), (1, 2), (2, 3), (3, 3), (4, 4), (5, 4)],
        timed="out",
    ),
    Swap(
        "predicate of filter",
        lambda stream: stream.filter(lambda n: n % 2 == 0),
        "predicate",
        lambda n: n % 2,
        [0, 2, 3, 5],
    ),
    Swap(
        "predicate of take_while",
        lambda stream: stream.take_while(lambda _: True),
        "predicate",
        lambda n: n < 4,
        [0, 1, 2, 3],
    ),
    Swap(
        "predicate of skip_while",
        lambda stream: stream.skip_while(lambda n: n < 5),
        "predicate",
        lambda n: n < 2,
        [2, 3, 4, 5],
        pulled_before=0,
    ),
    Swap(
        "reducer",
        lambda stream: stream.accumulate(operator.add),
        "reducer",
        operator.sub,
        [0, 1, -1, -4, -8, -13],
    ),
    Swap(
        "accumulator",
        lambda stream: stream.accumulate(operator.add, 0),
        "accumulator",
        100,
        [0, 1, 102, 105, 109, 114],
    ),
    Swap(
        "transform of flat_map",
        lambda stream: stream.flat_map(lambda n: [n, n]),
        "transform",
        lambda n: [n],
        [0, 0, 1, 1, 2, 3, 4, 5],
        pulled_before=3,
    ),
    Swap(
        "size of batch",
        lambda stream: stream.batch(2),
        "size",
        1,
        [[0, 1], [2], [3], [4], [5]],
        pulled_before=1,
    ),
    Swap("size of take", lambda stream: stream.take(3), "size", 5, [0, 1, 2, 3, 4]),
    Swap("size of skip", lambda stream: stream.skip(4), "size", 2, [2, 3, 4, 5], pulled_before=0),
    Swap(
        "condition",
        lambda stream: stream.batch_until(lambda items: items[-1] % 3 == 0),
        "condition",
        lambda _: True,
        [[0], [1, 2, 3], [4], [5]],
    ),
    Swap(
        "callbacks",
        lambda stream: stream.map(lambda n: [n]).tap(lambda item: item.append("a")),
        "callbacks",
        [lambda item: item.append("b"), lambda item: item.append("c")],
        [[0, "a"], [1, "a"], [2, "b", "c"], [3, "b", "c"], [4, "b", "c"], [5, "b", "c"]],
    ),
    Swap(
        "index",
        lambda stream: stream.in_order(lambda n: n),
        "index",
        lambda n: 7 - n,
        [0, 1, 5, 4, 3, 2],
    ),
    Swap(
        "handler",
        lambda stream: stream.map(reject_some).catch(lambda _: -1),
        "handler",
        lambda _: SKIP,
        [0, -1, 2, 3, 5],
    ),
    Swap(
        "buffer_size",
        lambda stream: stream.prefetch(),
        "buffer_size",
        3,
        [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2)],
        pause=1,
        timed="in",
    ),
    Swap(
        "seconds of timeout",
        lambda stream: stream.timeout(2, on_timeout="skip"),
        "seconds",
        0.5,
        [0, 1],
        items=PullTimerObj(1, count=6),
    ),
    Swap(
        "size of batch with timeout",
        lambda stream: stream.batch(2, 100),
        "size",
        3,
        [[0, 1], [2, 3, 4], [5]],
        pulled_before=1,
    ),
    Swap(
        "seconds of batch with timeout",
        lambda stream: stream.batch(10, 1.5),
        "seconds",
        0,
        [([0, 1], 2.5), ([2], 3), ([3], 4), ([4], 5), ([5], 6)],
        pulled_before=1,
        items=PullTimerObj(1, count=6),
        timed="out",
    ),
    *[
        Swap(
            f"{attribute} of throttle",
            lambda stream: stream.throttle(1),
            attribute,
            value,
            [(n, time) for n, time in enumerate(times)],
            timed="out",
        )
        for attribute, value, times in (
            ("rate", 2, [0, 1, 1.5, 2, 2.5, 3]),
            ("per", 3, [0, 1, 4, 7, 10, 13]),
            ("burst", 3, [0, 1, 1, 1, 2, 3]),
        )
    ],
]


@pytest.mark.virtual
@pytest.mark.parametrize("swap", as_params(SWAPS))
async def test_law_13_new_value_applies_to_next_item(swap: Swap) -> None:
    def timed(item: Any) -> Any:
        return item, asyncio.get_running_loop().time()

    source = SourceIterObj(swap.items).filter(lambda _: True)
    stream = swap.build(source.map(timed) if swap.timed == "in" else source)
    pipeline = stream.map(timed) if swap.timed == "out" else stream.filter(lambda _: True)
    received: list[Any] = []
    while True:
        if len(received) == swap.pulled_before:
            setattr(stream, swap.attribute, swap.value)
        if (result := await pipeline.next()).done:
            break
        received.append(result.value)
        await asyncio.sleep(swap.pause)
    assert received == swap.expected
