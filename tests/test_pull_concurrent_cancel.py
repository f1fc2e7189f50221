"""`map` with a concurrency: cancelled pulls and errors, guarantees 2 and 3."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullMapObj
from tests.concurrent_sources import VARIANTS, Gauge, RecordedSource, slow
from tests.support import collect, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("patience", range(14))
async def test_law_2_cancelled_anywhere_calls_each_item_once(
    variant: dict[str, Any], patience: int
) -> None:
    calls: Counter[int] = Counter()

    async def work(n: int) -> int:
        calls[n] += 1
        await yield_to_loop(n * 7 % 11)
        return n

    received: list[int] = []
    cancelled = 0
    stream = PullMapObj(RecordedSource(40), work, **variant).map(lambda n: n).filter(lambda _: True)
    for number in itertools.count():
        pull = asyncio.ensure_future(anext(stream))
        # Every third pull may finish, otherwise the shortest patience would make no progress.
        if number % 3:
            await yield_to_loop(patience)
            pull.cancel()
        try:
            received.append(await pull)
        except asyncio.CancelledError:
            cancelled += 1
        except StopAsyncIteration:
            break
    assert sorted(received) == list(range(40))
    assert variant.get("ordered", True) <= (received == list(range(40)))
    assert calls == Counter(range(40))
    assert cancelled or patience > 4


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(6))
async def test_law_2_random_cancels_of_concurrent_pulls(variant: dict[str, Any], seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    calls: Counter[int] = Counter()

    async def work(n: int) -> int:
        calls[n] += 1
        await yield_to_loop(rng.randrange(6))
        return n

    received: list[int] = []
    stream = PullMapObj(range(60), work, **variant)
    is_over = False
    while not is_over:
        pulls = [asyncio.ensure_future(anext(stream)) for _ in range(rng.randrange(1, 5))]
        await yield_to_loop(rng.randrange(9))
        for pull in pulls:
            if rng.randrange(2):
                pull.cancel()
        for outcome in await asyncio.gather(*pulls, return_exceptions=True):
            if isinstance(outcome, int):
                received.append(outcome)
            is_over |= isinstance(outcome, StopAsyncIteration)
    assert sorted(received) == list(range(60))
    assert variant.get("ordered", True) <= (received == list(range(60)))
    assert calls == Counter(range(60))


@pytest.mark.virtual
@pytest.mark.parametrize("variant", VARIANTS)
async def test_law_2_timed_out_pulls_cancel_no_call(
    variant: dict[str, Any],
) -> None:
    gauge = Gauge(1)
    received: list[int] = []
    timed_out = 0
    stream = PullMapObj(range(50), gauge, **variant)
    while True:
        try:
            received.append(await asyncio.wait_for(anext(stream), 0.1))
        except TimeoutError:
            timed_out += 1
        except StopAsyncIteration:
            break
    assert sorted(received) == [n * 10 for n in range(50)]
    assert gauge.calls == Counter(range(50))
    assert timed_out


@pytest.mark.parametrize("variant", VARIANTS)
async def test_law_2_raised_cancelled_error_costs_one_item(variant: dict[str, Any]) -> None:
    mine = {n: asyncio.CancelledError("mine") for n in (2, 3)}

    def fickle(n: int) -> Any:
        if n == 3:
            raise mine[3]
        return later(n)

    async def later(n: int) -> int:
        await asyncio.sleep(0)
        if n == 2:
            raise mine[2]
        return n

    stream = PullMapObj([1, 2, 3, 4], fickle, **variant)
    outcomes: set[Any] = set()
    for _ in range(4):
        try:
            outcomes.add(await anext(stream))
        except asyncio.CancelledError as error:
            outcomes.add(error)
    assert outcomes == {1, 4, mine[2], mine[3]}
    assert await collect(stream) == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("when", ["called", "awaited", "later"])
async def test_law_3_error_costs_one_item_and_has_one_note(
    variant: dict[str, Any], when: str
) -> None:
    errors = {2: ValueError(2), 3: ValueError(3)}

    def plain(n: int) -> Any:
        if n in errors and when == "called":
            raise errors[n]
        return awaited(n)

    async def awaited(n: int) -> int:
        if when == "later":
            await yield_to_loop(n % 3)
        if n in errors:
            raise errors[n]
        return n

    stream = PullMapObj(range(6), plain, **variant)
    received: list[Any] = []
    while True:
        try:
            received.append(await anext(stream))
        except ValueError as error:
            received.append(error)
        except StopAsyncIteration:
            break
    expected = [0, 1, errors[2], errors[3], 4, 5]
    assert len(received) == 6
    assert set(received) == set(expected)
    assert variant.get("ordered", True) <= (received == expected)
    for n, expected_error in errors.items():
        assert expected_error.__notes__ == [f"raised by transform of PullMapObj: item {n}"]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit])
async def test_law_3_iteration_error_becomes_runtime_error(
    is_async: bool, kind: type[BaseException]
) -> None:
    async def raise_later(n: int) -> int:
        if n == 1:
            raise kind
        return n

    def raise_at_once(n: int) -> int:
        if n == 1:
            raise kind
        return n

    stream: PullMapObj[int, int] = PullMapObj(
        range(3), wrong(raise_later if is_async else raise_at_once), concurrency=2
    )
    assert await anext(stream) == 0
    with pytest.raises(RuntimeError, match=f"raised {kind.__name__}") as caught:
        await anext(stream)
    assert type(caught.value.__cause__) is kind
    assert await collect(stream) == [2]


async def test_law_3_source_errors_are_raised_in_order() -> None:
    class Flaky:
        """An iterator whose third and fourth items fail."""

        def __init__(self) -> None:
            self.numbers = iter(range(6))

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            n = next(self.numbers)
            if n in {2, 3}:
                raise errors[n]
            return n

    errors: dict[int, BaseException] = {2: LookupError(2), 3: asyncio.CancelledError()}
    stream = PullMapObj(Flaky(), slow, concurrency=3)
    outcomes: list[Any] = []
    for _ in range(7):
        try:
            outcomes.append(await anext(stream))
        except (LookupError, asyncio.CancelledError) as error:
            outcomes.append(error)
        except StopAsyncIteration:
            outcomes.append("end")
    assert outcomes == [0, 10, errors[2], errors[3], 40, 50, "end"]
    assert not hasattr(errors[2], "__notes__")


def test_law_3_keyboard_interrupt_propagates() -> None:
    def interrupt(n: int) -> int:
        # Only once, since a second one would interrupt the clean-up of `asyncio.run`.
        if n == 1:
            raise KeyboardInterrupt
        return n

    async def interrupt_later(n: int) -> int:
        await asyncio.sleep(0)
        return interrupt(n)

    async def main(transform: Callable[[int], Any]) -> None:
        async with PullMapObj([0, 1, 2], transform, concurrency=2) as stream:
            await collect(stream)

    for transform in (interrupt, interrupt_later):
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main(transform))
