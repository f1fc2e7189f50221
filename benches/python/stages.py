"""A pipeline of map and filter stages in each library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from by_hand import filtered, inc, keep, mapped, numbers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

Kinds = Sequence[Literal["map", "filter"]]


def in_turn(count: int) -> Kinds:
    """Return `n` stages, of which every second one is a filter."""
    return ["filter" if number % 2 else "map" for number in range(count)]


def drop(x: int) -> bool:
    return x % 7 == 0


def by_hand(items: int, kinds: Kinds) -> AsyncIterator[int]:
    stream = numbers(items)
    for kind in kinds:
        stream = filtered(keep, stream) if kind == "filter" else mapped(inc, stream)
    return stream


def by_builtins(items: int, kinds: Kinds) -> Iterable[int]:
    stream: Iterator[int] = iter(range(items))
    for kind in kinds:
        stream = filter(keep, stream) if kind == "filter" else map(inc, stream)
    return stream


def by_headrace(items: int, kinds: Kinds) -> Any:
    from headrace import SourceIterObj

    stream: Any = SourceIterObj(range(items))
    for kind in kinds:
        stream = stream.filter(keep) if kind == "filter" else stream.map(inc)
    return stream


def by_aiostream(items: int, kinds: Kinds) -> Any:
    from aiostream import pipe, stream

    line: Any = stream.iterate(range(items))
    for kind in kinds:
        line |= pipe.filter(keep) if kind == "filter" else pipe.map(inc)
    return line


def by_streamable(items: int, kinds: Kinds) -> Any:
    from streamable import stream

    line: Any = stream(range(items))
    for kind in kinds:
        line = line.filter(keep) if kind == "filter" else line.map(inc)
    return line


def by_asyncstdlib(items: int, kinds: Kinds) -> Any:
    import asyncstdlib

    stream: Any = range(items)
    for kind in kinds:
        stream = (
            asyncstdlib.filter(keep, stream) if kind == "filter" else asyncstdlib.map(inc, stream)
        )
    return stream


def by_aioitertools(items: int, kinds: Kinds) -> Any:
    import aioitertools
    from aioitertools.itertools import filterfalse

    stream: Any = range(items)
    for kind in kinds:  # it has no `filter`
        stream = filterfalse(drop, stream) if kind == "filter" else aioitertools.map(inc, stream)
    return stream


def by_reactivex(items: int, kinds: Kinds) -> Any:
    import reactivex
    from reactivex import operators

    return reactivex.from_iterable(range(items)).pipe(
        *(operators.filter(keep) if kind == "filter" else operators.map(inc) for kind in kinds)
    )


def by_aioreactive(items: int, kinds: Kinds) -> Any:
    import aioreactive

    stream: Any = aioreactive.from_iterable(range(items))
    for kind in kinds:
        stream = (aioreactive.filter(keep) if kind == "filter" else aioreactive.map(inc))(stream)
    return aioreactive.to_async_iterable(stream)


def by_aiochan(items: int, kinds: Kinds) -> Any:
    import aiochan

    channel = aiochan.from_range(items)
    for kind in kinds:
        channel = channel.filter(keep) if kind == "filter" else channel.map(inc)
    return channel
