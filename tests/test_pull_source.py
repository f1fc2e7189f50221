"""Pull sources: buffers, single values, iterables and lines of files, by law."""

from __future__ import annotations

import gc
import random
from typing import TYPE_CHECKING, Any

import pytest

from headrace import IteratorResult, SourceBufferObj, SourceCacheObj, SourceIterObj
from tests.support import collect, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# A buffer.


@pytest.mark.parametrize(("mode", "expected"), [("fifo", [1, 2, 3]), ("lifo", [3, 2, 1])])
async def test_buffer_mode_selects_the_end(mode: Any, expected: list[int]) -> None:
    source = SourceBufferObj([1, 2, 3], mode=mode)
    assert source.mode == mode
    assert [source.peek(), await anext(source)] == expected[:1] * 2
    source.buffer.append(4)
    assert source.peek() == await anext(source) == (2 if mode == "fifo" else 4)
    assert len(source.buffer) == 2
    await collect(source)
    with pytest.raises(IndexError, match="the buffer is empty"):
        source.peek()


async def test_random_buffer_operations_match_a_list() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for mode, index in (("fifo", 0), ("lifo", -1)):
        source, model = SourceBufferObj[int](mode=wrong(mode)), list[int]()
        for n in range(300):
            if rng.random() < 0.5:
                source.buffer.append(n)
                model.append(n)
            elif model:
                assert source.peek() == model[index]
                assert await anext(source) == model.pop(index)
        assert list(source.buffer) == model


@pytest.mark.parametrize("mode", ["stack", None, 1, ["fifo"]])
def test_law_14_buffer_refuses_an_unknown_mode(mode: Any) -> None:
    with pytest.raises(ValueError, match="mode must be 'fifo' or 'lifo', got"):
        SourceBufferObj([1], mode=mode)


# One value.


async def test_law_13_cache_yields_its_current_value_once() -> None:
    source = SourceCacheObj("old")
    source.value = "new"
    assert await collect(source.map(str.upper)) == ["NEW"]
    source.value = "newer"
    assert await collect(source) == []
    source.restart()
    assert await collect(source) == ["newer"]
    doubled = SourceCacheObj(2).map(lambda n: n * 2)
    assert await collect(doubled) == [4]
    doubled.restart()
    assert await collect(doubled) == [4]


async def test_cache_yields_none_and_exceptions_unchanged() -> None:
    error = StopAsyncIteration()
    assert await SourceCacheObj(error).next() == IteratorResult(error, False)
    assert await collect(SourceCacheObj(None)) == [None]


async def test_law_5_cache_in_a_cycle_is_collected() -> None:
    class Value:
        source: Any

    finalized: list[str] = []
    value = Value()
    value.source = SourceCacheObj(value)
    value.__class__.__del__ = lambda _: finalized.append("dead")  # type: ignore[attr-defined]
    del value
    gc.collect()
    assert finalized == ["dead"]


# An iterable.


async def test_law_11_restart_creates_a_new_iterator() -> None:
    made: list[Iterator[int]] = []

    class Twice:
        def __iter__(self) -> Iterator[int]:
            made.append(iter([1, 2]))
            return made[-1]

    source = SourceIterObj(Twice())
    assert made == []
    assert await anext(source) == 1
    source.restart()
    assert await collect(source) == [1, 2]
    assert len(made) == 2


@pytest.mark.parametrize(
    "make", [lambda: iter([1, 2]), lambda: (n for n in (1, 2)), lambda: map(abs, [1, 2])]
)
async def test_law_11_restart_of_an_iterator_is_refused(
    make: Callable[[], Iterator[int]],
) -> None:
    source = SourceIterObj(make())
    assert await anext(source) == 1
    with pytest.raises(RuntimeError, match="is an iterator, which runs once"):
        source.restart()
    assert await collect(source) == [2]
