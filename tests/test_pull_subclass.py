"""User-defined pull objects: the methods that a subclass may override."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import IteratorResult, PullMapObj, PullObj1To1Link, SourceIterObj, SourceObj
from tests.support import collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_pull_impl_works_anywhere_in_a_pipeline() -> None:
    class Twice(PullObj1To1Link[int, int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            async for item in self.source:
                yield item
                yield item

    class Count(SourceObj[int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            for n in range(3):
                await asyncio.sleep(0)
                yield n

    stream = Twice(Count().map(lambda n: n + 1)).filter(lambda n: n != 2).map(str)
    assert await collect(stream) == ["1", "1", "3", "3"]
    stream.restart()
    assert await collect(stream) == ["1", "1", "3", "3"]


async def test_subclass_may_extend_pull_impl() -> None:
    class Logged(PullMapObj[int, int]):
        async def pull_impl(self) -> AsyncIterator[int]:
            async for item in super().pull_impl():
                logged.append(item)
                yield item

    logged: list[int] = []
    assert await collect(Logged([1, 2], lambda n: n * 2).map(str)) == ["2", "4"]
    assert logged == [2, 4]


async def test_overriding_next_or_anext_overrides_both() -> None:
    class ByNext(SourceObj[int]):
        left = 2

        async def next(self) -> IteratorResult[int]:
            if not self.left:
                return IteratorResult(0, True)
            self.left -= 1
            return IteratorResult(self.left, False)

    class ByAnext(SourceObj[int]):
        left = 2

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    for kind in (ByNext, ByAnext):
        assert await collect(kind().map(str)) == ["1", "0"]
        assert (await kind().next()).value == 1
        assert await anext(kind()) == 1


async def test_return_and_throw_call_a_source_override() -> None:
    class Source(SourceIterObj[int]):
        def __init__(self) -> None:
            super().__init__(range(10))
            self.ended: list[Any] = []

        async def return_(self, value: Any = None) -> IteratorResult[Any]:
            self.ended.append(value)
            return await super().return_(value)

        async def throw(self, error: BaseException) -> IteratorResult[Any]:
            self.ended.append(error)
            return await super().throw(error)

    source = Source()
    stream = source.map(str)
    assert await anext(stream) == "0"
    assert await stream.return_("enough") == IteratorResult("enough", True)
    assert await stream.next() == IteratorResult(None, True)
    error = KeyError("x")
    other = Source()
    with pytest.raises(KeyError):
        await other.map(str).throw(error)
    assert (source.ended, other.ended) == (["enough"], [error])


async def test_class_without_items_names_the_method_to_write() -> None:
    with pytest.raises(NotImplementedError, match="override pull_impl"):
        await anext(SourceObj[int]())
