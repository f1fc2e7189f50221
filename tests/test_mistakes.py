"""Errors for common mistakes name the parameter, the value and the remedy."""

from __future__ import annotations

import asyncio
import gc
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    PullMapObj,
    PushPullBufferObj,
    Rate,
    SourceIterObj,
    Task,
    WrongLoopError,
)
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Callable


async def fetch(page: int = 0) -> int:
    await asyncio.sleep(0)
    return page


async def pages() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            Task,
            r"fn must be callable, not <coroutine object fetch.*; give the function itself, uncalled",
        ),
        (
            lambda coroutine: PullMapObj([1], coroutine),
            r"transform must be callable, got <coroutine object fetch.*; give the function itself, uncalled",
        ),
        (
            SourceIterObj,
            r"iterable must be .*<coroutine object fetch.*; await it, and give what it returns",
        ),
    ],
    ids=["Task", "map", "source"],
)
def test_law_14_coroutine_instead_of_a_function(
    make: Callable[[Any], object], message: str
) -> None:
    with closing(fetch()) as coroutine, pytest.raises(TypeError, match=message):
        make(coroutine)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pages, r"source must be .*<function pages.*; call it, and give what it returns"),
        (
            PushPullBufferObj(),
            r"source must be .*<PushPullBufferObj.*; its items come out of its \.source",
        ),
        (5, r"source must be an iterable or an async iterable, got 5 \(int\)$"),
    ],
    ids=["generator function", "buffer", "number"],
)
def test_law_14_bad_source_error_names_the_remedy(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        HierarchicalTaskPoolRunner(value, CapacitySource(1))


async def test_bad_task_error_names_the_remedy() -> None:
    with closing(fetch()) as coroutine:
        refused: list[tuple[Any, str]] = [
            (
                coroutine,
                r"not <coroutine object fetch.*; give the function uncalled, as fetch or Task\(fetch, \.\.\.\)",
            ),
            ((fetch, 1), r"\(tuple\); arguments are given as Task\(fn, \*args\)"),
            ("fetch", r"not 'fetch' \(str\)$"),
        ]
        for value, message in refused:
            with pytest.raises(TypeError, match=message):
                await HierarchicalTaskPoolRunner([value], CapacitySource(1)).run()


@pytest.mark.parametrize(
    ("capacity", "options", "message"),
    [
        (
            CapacitySource(3),
            {"concurrency": 3},
            r"map_pool has no parameter 'concurrency', got 3 \(int\); it has cost, .*retry.* its capacity says how many",
        ),
        (
            CapacitySource(3),
            {"cost": {"token": 1}},
            r"'token' is limited neither by .*known there: slots$",
        ),
        (
            CapacitySource(3),
            {"cost": 5},
            r"a cost of 5 slots can never be granted: .* is 3; lower the cost or raise",
        ),
        (
            CapacitySource({"tokens": Rate(5)}),
            {},
            r"'slots' is limited neither .*known there: tokens; a cost that names no resource .*\{\"tokens\": 1\}",
        ),
    ],
    ids=["concurrency", "resource", "cost", "no slots"],
)
def test_law_14_map_pool_refuses_at_construction(
    capacity: CapacitySource, options: Any, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        SourceIterObj([1]).map_pool(fetch, capacity, **options)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (20.5, r"made of this limit: CapacitySource\(limit\), .* got 20\.5 \(float\)"),
        (Rate(5), r"made of this limit: CapacitySource\(limit\), .* got Rate\("),
        ({"tokens": 5}, r"made of this limit: CapacitySource\(limit\), .* got {'tokens': 5}"),
        (asyncio.Semaphore(3), r"such as CapacitySource\(20\), .* \(Semaphore\)"),
        (-1, r"capacity must be at least 1, got -1"),
    ],
    ids=["float", "rate", "mapping", "semaphore", "negative"],
)
def test_law_14_bad_capacity_error_names_the_remedy(value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        SourceIterObj([1]).map_pool(fetch, value)


def test_law_14_limit_refuses_a_number() -> None:
    value: Any = 20
    with pytest.raises(TypeError, match=r"got 20 \(int\); for 20 slots, give CapacitySource\(20\)"):
        SourceIterObj([1]).limit(value)


def test_law_14_bad_limits_are_refused() -> None:
    with pytest.raises(
        TypeError,
        match=r"limit\['slots'\] must be a number, an AdaptiveLimit, a Rate or a Budget, got '5' \(str\)",
    ):
        CapacitySource({"slots": "5"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        TypeError,
        match=r"limit must be .*, or a mapping of resource to one of them, got '5' \(str\)",
    ):
        CapacitySource("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_law_5_unclosed_warning_names_the_remedy() -> None:
    held = [SourceIterObj(range(9)).map(fetch, concurrency=2)]
    await anext(held[0])
    with pytest.warns(
        ResourceWarning,
        match=r"unclosed <PullMapObj.*>; leave it with `async with`, or await its aclose\(\)",
    ):
        held.clear()
        gc.collect()
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_law_9_second_loop_error_names_the_remedy() -> None:
    async def pull() -> object:
        return await anext(run)

    async with HierarchicalTaskPoolRunner([fetch, fetch], CapacitySource(1)).run_tasks() as run:
        await anext(run)
        with pytest.raises(
            WrongLoopError,
            match="pull it there, and hand what it gives over in a PushPullBufferObj",
        ):
            await asyncio.to_thread(lambda: asyncio.run(pull()))
