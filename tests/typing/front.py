"""The types that a checker infers for `headrace.amap` and `headrace.map`. Checked, never run."""

from __future__ import annotations

from typing import assert_type

import headrace
from headrace import CapacitySource, Failure, MapError, Rate, Retry


async def slow_length(text: str) -> int:
    return len(text)


def length(text: str) -> int:
    return len(text)


def identity(text: str) -> str:
    return text


async def streams() -> None:
    words = ["a", "b"]
    assert_type(await headrace.amap(slow_length, words, limit=2).collect(), list[int])
    assert_type(await headrace.amap(length, words, limit=CapacitySource(2)).collect(), list[int])
    assert_type(
        await headrace.amap(slow_length, words, limit=2, errors="return").collect(),
        list[int | Failure],
    )
    assert_type(
        await headrace.amap(length, words, limit=2, errors="skip", ordered=False).collect(),
        list[int],
    )
    async with headrace.amap(
        slow_length, words, limit=2, rate="5/m", retry=2, timeout=1.5, progress=True, key=identity
    ) as lengths:
        async for one in lengths:
            assert_type(one, int)
    headrace.amap(slow_length, words, limit=2, rate=Rate(5), retry=Retry(2), progress=print)


def lists() -> None:
    words = ["a", "b"]
    assert_type(headrace.map(slow_length, words, limit=2), list[int])
    assert_type(headrace.map(length, words, limit=2, thread=False), list[int])
    assert_type(headrace.map(length, words, limit=2, errors="return"), list[int | Failure])
    try:
        headrace.map(length, words, limit=2)
    except MapError as error:
        assert_type(error.failures, list[Failure])


def wrong() -> None:
    headrace.map(length, [1], limit=2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    headrace.map(length, ["a"])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    headrace.map(length, ["a"], limit="2")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
