"""Random pipelines, compared with equivalent plain Python.

A failure prints a blob: put `@reproduce_failure(...)` with it over the test to run it again. `HYPOTHESIS_PROFILE=explore`
tries more examples, at random.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import given, settings, strategies as st

from headrace import SKIP, PullObj, SourceBufferObj, SourceIterObj
from headrace.testing import ScriptedSource, Yields
from tests.support import collect, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

# Each pipeline runs three times, on its own loop.
settings.register_profile("headrace", derandomize=True, max_examples=500, database=None)
settings.register_profile("headrace-explore", max_examples=5_000)
PROFILE = settings.get_profile(
    "headrace-explore" if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else "headrace"
)

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Stage:
    """An operator, as a function of a stream and of a list."""

    name: str
    run: Callable[[PullObj[Any], Wrap], PullObj[Any]]
    model: Callable[[list[Any]], list[Any]]
    delay: int | None
    """The number of loop iterations that its callable waits; `None` for a sync callable."""
    restarts: bool = True
    """Whether it can restart at its end."""

    def __repr__(self) -> str:
        return self.name if self.delay is None else f"{self.name} (async, {self.delay} iterations)"

    def apply(self, stream: PullObj[Any]) -> PullObj[Any]:
        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            if (delay := self.delay) is None:
                return function

            async def slow(*arguments: Any) -> Any:
                await yield_to_loop(delay)
                return function(*arguments)

            return slow

        return self.run(stream, wrap)


def batches(items: list[Any], size: int) -> list[list[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def mixed(item: int, modulus: int) -> int:
    """Hash a number to one below `modulus`."""
    return (item * 7 + 3) % modulus


def parts(items: list[int], modulus: int) -> list[list[int]]:
    """Split a list behind each item that `mixed` maps to 0."""
    found: list[list[int]] = [[]]
    for n in items:
        found[-1].append(n)
        if not mixed(n, modulus):
            found.append([])
    return found if found[-1] else found[:-1]


def picky(item: int, modulus: int) -> int:
    """Return the item, or raise an error that contains it."""
    if mixed(item, modulus):
        return item
    raise LookupError(item)


def shuffled(stream: PullObj[int], size: int) -> PullObj[tuple[int, int]]:
    """Number the items, and move each by less than `size` positions."""
    first: tuple[int, int] = (-1, 0)
    numbered = stream.accumulate(lambda last, n: (last[0] + 1, n), first)
    return numbered.batch(size).flat_map(lambda window: sorted(window, key=lambda pair: pair[1]))


delays = st.none() | st.integers(0, 3)
small = st.integers(0, 6)


def stage(
    name: str,
    make: Callable[[int], tuple[Callable[..., PullObj[Any]], Callable[[list[Any]], list[Any]]]],
    *,
    restarts: bool = True,
) -> st.SearchStrategy[Stage]:
    """Build stages that depend on one small number."""

    def build(number: int, delay: int | None) -> Stage:
        run, model = make(number)
        return Stage(f"{name} {number}", run, model, delay, restarts)

    return st.builds(build, small, delays)


# All stages map numbers to numbers, so they can follow each other in any order.
STAGES = st.one_of(
    stage(
        "map",
        lambda k: (
            lambda stream, wrap: stream.map(wrap(lambda n: n + k)),
            lambda items: [n + k for n in items],
        ),
    ),
    stage(
        "filter",
        lambda k: (
            lambda stream, wrap: stream.filter(wrap(lambda n: mixed(n, k + 1))),
            lambda items: [n for n in items if mixed(n, k + 1)],
        ),
    ),
    stage(
        "accumulate",
        lambda k: (
            lambda stream, wrap: stream.accumulate(wrap(operator.add), k),
            lambda items: list(itertools.accumulate(items, initial=k))[1:],
        ),
    ),
    stage(
        "accumulate without initial, not",
        lambda _: (
            lambda stream, wrap: stream.accumulate(wrap(operator.sub)),
            lambda items: list(itertools.accumulate(items, operator.sub)),
        ),
    ),
    stage(
        "dedupe by",
        lambda k: (
            lambda stream, wrap: stream.dedupe(key=wrap(lambda n: mixed(n, k + 2))),
            lambda items: [
                n
                for at, n in enumerate(items)
                if mixed(n, k + 2) not in {mixed(m, k + 2) for m in items[:at]}
            ],
        ),
    ),
    stage(
        "dedupe consecutive, not",
        lambda _: (
            lambda stream, _: stream.dedupe(consecutive=True),
            lambda items: [n for n, _ in itertools.groupby(items)],
        ),
    ),
    stage(
        "take 3 times",
        lambda k: (lambda stream, _: stream.take(3 * k), lambda items: items[: 3 * k]),
    ),
    stage("skip", lambda k: (lambda stream, _: stream.skip(k), lambda items: items[k:])),
    stage(
        "take_while",
        lambda k: (
            lambda stream, wrap: stream.take_while(wrap(lambda n: mixed(n, 8) != k)),
            lambda items: list(itertools.takewhile(lambda n: mixed(n, 8) != k, items)),
        ),
    ),
    stage(
        "skip_while",
        lambda k: (
            lambda stream, wrap: stream.skip_while(wrap(lambda n: mixed(n, 8) > k)),
            lambda items: list(itertools.dropwhile(lambda n: mixed(n, 8) > k, items)),
        ),
    ),
    stage(
        "flat_map",
        lambda k: (
            lambda stream, wrap: stream.flat_map(wrap(lambda n: range(mixed(n, k % 3 + 1)))),
            lambda items: [m for n in items for m in range(mixed(n, k % 3 + 1))],
        ),
    ),
    stage(
        "flat_map to a waiting source",
        lambda k: (
            lambda stream, wrap: stream.flat_map(
                wrap(lambda n: ScriptedSource([n, Yields(1), k, Yields(k % 2)]))
            ).take(60),
            lambda items: [m for n in items for m in (n, k)][:60],
        ),
    ),
    stage(
        "batch and flatten",
        lambda k: (lambda stream, _: stream.batch(k + 1).flatten(), lambda items: items),
    ),
    stage(
        "batch and sum",
        lambda k: (
            lambda stream, wrap: stream.batch(k + 1).map(wrap(sum)),
            lambda items: [sum(batch) for batch in batches(items, k + 1)],
        ),
    ),
    stage(
        "batch_until and sum",
        lambda k: (
            lambda stream, wrap: stream.batch_until(
                wrap(lambda items: not mixed(items[-1], k + 1))
            ).map(sum),
            lambda items: [sum(part) for part in parts(items, k + 1)],
        ),
    ),
    stage(
        "tap",
        lambda k: (
            lambda stream, wrap: stream.tap(*[wrap(lambda n: n + k)] * (k % 3 + 1)),
            lambda items: items,
        ),
    ),
    stage(
        "in_order after a shuffle by",
        lambda k: (
            lambda stream, wrap: (
                shuffled(stream, k + 1)
                .in_order(wrap(lambda pair: pair[0]), maxsize=k + 1)
                .map(lambda pair: pair[1])
            ),
            lambda items: items,
        ),
    ),
    stage(
        "catch with a value for",
        lambda k: (
            lambda stream, wrap: stream.map(wrap(lambda n: picky(n, k + 2))).catch(
                wrap(lambda error: -error.args[0])
            ),
            lambda items: [n if mixed(n, k + 2) else -n for n in items],
        ),
    ),
    stage(
        "catch with a skip for",
        lambda k: (
            lambda stream, wrap: stream.map(lambda n: picky(n, k + 2)).catch(wrap(lambda _: SKIP)),
            lambda items: [n for n in items if mixed(n, k + 2)],
        ),
    ),
    stage(
        "concurrent map",
        lambda k: (
            lambda stream, wrap: stream.map(
                wrap(lambda n: n - k), concurrency=k % 3 + 2, window=k + 4
            ),
            lambda items: [n - k for n in items],
        ),
        restarts=False,
    ),
    stage(
        "concurrent map by key",
        lambda k: (
            lambda stream, wrap: stream.map(
                wrap(lambda n: n - k),
                concurrency=k % 3 + 2,
                window=k + 4,
                partition_by=lambda n: n % 3,
                per_key=k % 2 + 1,
            ),
            lambda items: [n - k for n in items],
        ),
        restarts=False,
    ),
    stage(
        "map with keep",
        lambda k: (
            lambda stream, wrap: stream.map(wrap(lambda n: n - k), on_cancel="keep"),
            lambda items: [n - k for n in items],
        ),
        restarts=False,
    ),
    stage(
        "prefetch",
        lambda k: (lambda stream, _: stream.prefetch(k + 1), lambda items: items),
        restarts=False,
    ),
    stage(
        "tee, not",
        lambda _: (lambda stream, _: stream.tee(1)[0], lambda items: items),
        restarts=False,
    ),
    stage(
        "full batches and sum",
        lambda k: (
            lambda stream, wrap: stream.batch(k + 1, partial="drop").map(wrap(sum)),
            lambda items: [sum(b) for b in batches(items, k + 1) if len(b) == k + 1],
        ),
    ),
)


def listed(items: list[int]) -> PullObj[int]:
    return SourceIterObj(items)


def buffered(items: list[int]) -> PullObj[int]:
    return SourceBufferObj(items)


def waiting(items: list[int]) -> PullObj[int]:
    return SourceIterObj(
        ScriptedSource([step for n in items for step in (Yields(abs(n) % 3), n)] + [Yields(1)])
    )


numbers = st.lists(st.integers(-9, 9), max_size=20)
pipelines = st.lists(STAGES, max_size=12)
sources = st.sampled_from([listed, buffered, waiting])


def build_stream(source: PullObj[Any], stages: list[Stage]) -> PullObj[Any]:
    for each in stages:
        source = each.apply(source)
    return source


def model_items(items: list[Any], stages: list[Stage]) -> list[Any]:
    for each in stages:
        items = each.model(items)
    return items


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


@PROFILE
@given(numbers, pipelines, sources)
def test_law_7_random_pipelines_match_their_models(
    items: list[int], stages: list[Stage], source: Callable[[list[int]], PullObj[int]]
) -> None:
    async def main() -> None:
        async with build_stream(source(items), stages) as stream:
            expected = model_items(items, stages)
            assert await collect(stream) == expected
            assert (await stream.next()).done
            if source is not buffered and all(each.restarts for each in stages):
                stream.restart()
                assert await collect(stream) == expected

    run(main())


@PROFILE
@given(numbers, pipelines, sources, st.lists(st.integers(0, 12), min_size=1, max_size=30))
def test_law_2_randomly_cancelled_pipelines_match_models(
    items: list[int],
    stages: list[Stage],
    source: Callable[[list[int]], PullObj[int]],
    patience: list[int],
) -> None:
    """Cancel a pull after each given number of iterations, and then pull the rest."""

    async def main() -> None:
        received: list[Any] = []
        async with build_stream(source(items), stages) as stream:
            for left in patience:
                pull = asyncio.ensure_future(anext(stream))
                await yield_to_loop(left)
                pull.cancel()
                try:
                    received.append(await pull)
                except asyncio.CancelledError:
                    continue
                except StopAsyncIteration:
                    break
            received += await collect(stream)
        assert received == model_items(items, stages)

    run(main())


@PROFILE
@given(numbers, pipelines, sources, st.integers(2, 6), st.lists(st.integers(0, 20), max_size=8))
def test_law_12_concurrent_pulls_share_items_in_order(
    items: list[int],
    stages: list[Stage],
    source: Callable[[list[int]], PullObj[int]],
    pullers: int,
    cancelled_at: list[int],
) -> None:
    """Pull from several tasks, and cancel some. A cancelled task must not lose an item."""

    async def main() -> None:
        received: list[Any] = []

        async def puller() -> None:
            async for item in stream:
                received.append(item)

        async with build_stream(source(items), stages) as stream:
            tasks = [asyncio.ensure_future(puller()) for _ in range(pullers + len(cancelled_at))]
            for task, after in zip(tasks, cancelled_at, strict=False):
                await yield_to_loop(after)
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                assert task.cancelled() or task.exception() is None
        assert received == model_items(items, stages)

    run(main())
