"""`catch`: a handler of two arguments gets the item for which the error was raised."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import weakref
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from headrace import PullCatchObj, PullObj, PullObj1To1Link, SourceIterObj, amap
from tests.support import collect, wrong, yield_to_loop
from tests.test_pull_catch import Failing, odd_fails

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def negate(error: Exception) -> int:
    return -int(error.args[0])


async def note_item(error: Exception, item: Any) -> tuple[Any, int]:
    await yield_to_loop(1)
    return item, error.args[0]


ITEMS = ["a", "b", "c", "d"]


def pairs_fail(pair: tuple[int, str]) -> str:
    odd_fails(pair[0])
    return pair[1]


async def pairs_fail_later(pair: tuple[int, str]) -> str:
    await yield_to_loop(1)
    return pairs_fail(pair)


def by_generator(source: PullObj[Any]) -> PullObj[Any]:
    async def generator() -> AsyncIterator[Any]:
        async for item in source:
            yield item

    return SourceIterObj(generator())


RAISING: dict[str, Callable[[PullObj[Any]], PullObj[Any]]] = {
    "map": lambda source: source.map(pairs_fail),
    "async map": lambda source: source.map(pairs_fail_later),
    "filter": lambda source: source.filter(lambda pair: pairs_fail(pair) != ""),
    "flat_map": lambda source: source.flat_map(lambda pair: [pairs_fail(pair)]),
    "tap": lambda source: source.tap(pairs_fail),
    "take_while": lambda source: source.take_while(lambda pair: bool(pairs_fail(pair))),
    "concurrent map": lambda source: source.map(pairs_fail, concurrency=3),
    "concurrent async map": lambda source: source.map(pairs_fail_later, concurrency=3),
    "map by key": lambda source: source.map(
        pairs_fail_later, concurrency=3, partition_by=lambda pair: pair[0] % 2
    ),
    "map_pool": lambda source: source.map_pool(pairs_fail_later, 3, ordered=True),
    "amap": lambda source: amap(pairs_fail_later, source, limit=3),
    "through other stages": lambda source: source.map(pairs_fail).batch(1).flatten(),
    "through a tee": lambda source: source.map(pairs_fail).tee(1)[0],
    "through a prefetch": lambda source: source.map(pairs_fail_later).prefetch(2),
    "through a merge": lambda source: source.map(pairs_fail).merge([]),
    "through an unfused stage": lambda source: Unfused(source.map(pairs_fail)),
}


class Unfused(PullObj1To1Link[Any, Any]):
    async def __anext__(self) -> Any:
        return await anext(self.source)


@pytest.mark.parametrize("made", RAISING)
@pytest.mark.parametrize("is_async", [False, True])
async def test_handler_of_two_arguments_gets_the_item(made: str, is_async: bool) -> None:
    handler: Callable[[Exception, Any], Any] = (
        note_item if is_async else lambda error, item: (item, error.args[0])
    )
    async with RAISING[made](SourceIterObj(enumerate(ITEMS))).catch(handler) as stream:
        results = await stream.collect()
    failed = [result for result in results if result in [((1, "b"), 1), ((3, "d"), 3)]]
    assert failed == [((1, "b"), 1), ((3, "d"), 3)]
    assert len(results) == 4


async def test_generator_between_passes_the_item_on() -> None:
    source = SourceIterObj(enumerate(ITEMS[:2])).map(pairs_fail)
    stream = by_generator(source).catch(lambda _, item: item)
    assert await collect(stream) == ["a", (1, "b")]


async def test_item_is_that_of_the_nearest_callable() -> None:
    async def inner(n: int) -> list[int]:
        return await SourceIterObj([n * 11]).map(odd_fails).collect()

    stream = SourceIterObj([2, 3]).map(inner).catch(lambda _, item: item)
    assert await collect(stream) == [[22], 3]


async def test_item_is_none_if_no_callable_raised() -> None:
    stream = SourceIterObj(Failing(4)).catch(lambda error, item: (error.args, item))
    assert await collect(stream) == [0, ((1,), None), 2, ((3,), None)]


@pytest.mark.parametrize("options", [{}, {"concurrency": 4}])
async def test_one_exception_object_for_several_items(options: dict[str, Any]) -> None:
    error = ValueError("the same")

    async def fails(n: int) -> int:
        await yield_to_loop(4 - n)
        raise error

    stream = SourceIterObj(range(4)).map(fails, **options).catch(lambda _, item: item)
    assert await collect(stream) == [0, 1, 2, 3]


async def test_handler_that_raises_passes_the_item_on() -> None:
    def again(error: Exception) -> int:
        raise OSError("other") from error

    stream = SourceIterObj([2, 3]).map(odd_fails).catch(again)
    assert await collect(stream.catch(lambda error, item: (str(error), item))) == [2, ("other", 3)]


async def test_law_2_cancelled_handler_gets_the_item_again() -> None:
    gate, seen = asyncio.Event(), list[Any]()

    async def handler(error: Exception, item: Any) -> Any:
        seen.append(item)
        await gate.wait()
        return item

    stream = SourceIterObj([1]).map(odd_fails).catch(handler)
    pull = asyncio.ensure_future(anext(stream))
    await yield_to_loop(3)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    gate.set()
    assert await collect(stream) == [1]
    assert seen == [1, 1]


async def test_law_13_the_signature_of_a_new_handler_counts() -> None:
    stream: PullCatchObj[int, Any] = SourceIterObj([1, 3, 5]).map(odd_fails).catch(negate)
    assert await anext(stream) == -1
    stream.handler = lambda error, item: (error.args, item)
    assert await anext(stream) == ((3,), 3)
    stream.handler = negate
    assert await anext(stream) == -5


class Pair(NamedTuple):
    error: Exception
    item: Any


class Handler:
    def two(self, error: Exception, item: Any) -> Any:
        return item

    def __call__(self, error: Exception, *rest: Any, item: Any = "default") -> Any:
        return item, rest


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (lambda _, item="default": item, "default"),
        (lambda *arguments: len(arguments), 1),
        (Handler(), ("default", ())),
        (Handler().two, 1),
        (partial(lambda name, _, item: (name, item), "n"), ("n", 1)),
        (partial(lambda _, item: item, item="given"), "given"),
        (repr, "KeyError(1)"),
        (str, "1"),
    ],
)
async def test_signatures_of_handlers(handler: Any, expected: Any) -> None:
    assert await SourceIterObj([1]).map(odd_fails).catch(handler).collect() == [expected]


async def test_class_of_two_parameters_is_a_handler() -> None:
    pair: Any
    (pair,) = await SourceIterObj([1]).map(odd_fails).catch(Pair).collect()
    assert (type(pair), pair.item) == (Pair, 1)


def test_law_14_handler_of_other_arguments_is_refused() -> None:
    message = (
        r"handler must take the error, or the error and its item, got three\(error, item, more\)"
    )

    def three(error: Any, item: Any, more: Any) -> None: ...

    with pytest.raises(TypeError, match=message):
        PullCatchObj([1], wrong(three))
    with pytest.raises(TypeError, match=r"handler must take the error, .*<lambda>"):
        SourceIterObj([1]).catch(wrong(lambda: None))
    stream = SourceIterObj([1]).catch(negate)
    with pytest.raises(TypeError, match=message):
        stream.handler = wrong(three)
    assert stream.handler is negate


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")

    def __repr__(self) -> str:
        return "<the item>"


async def test_error_with_an_item_stays_an_ordinary_error() -> None:
    item: Any = Unpicklable()
    stream = SourceIterObj([item, item]).map(negate)
    with pytest.raises(AttributeError) as caught:
        await anext(stream)
    for again in (pickle.loads(pickle.dumps(caught.value)), copy.deepcopy(caught.value)):  # noqa: S301 - made here
        assert (type(again), again.args) == (AttributeError, caught.value.args)
        assert again.__notes__ == ["raised by transform of PullMapObj: item <the item>"]
    assert await stream.catch(lambda _, item: item).collect() == [item]


async def test_error_that_takes_no_attribute_has_its_item() -> None:
    def fails(_: int) -> None:
        raise FrozenError(3)

    assert await SourceIterObj([7]).map(fails).catch(lambda _, item: item).collect() == [7]


async def test_error_refers_to_its_item_and_nothing_else_does() -> None:
    class Item:
        pass

    def fails(_: Item) -> None:
        raise ValueError

    async def fails_later(_: Item) -> None:
        raise ValueError

    streams: list[Callable[[Item], PullObj[Any]]] = [
        lambda item: SourceIterObj([item]).map(fails),
        lambda item: SourceIterObj([item]).map(fails_later, concurrency=2),
        lambda item: amap(fails_later, [item], limit=1),
    ]
    for make in streams:
        item = Item()
        seen = weakref.ref(item)
        async with make(item) as stream:
            del item
            with pytest.raises(ValueError) as caught:
                await anext(stream)
            assert seen() is not None
        del stream
        caught.value.__traceback__ = None
        await yield_to_loop(3)
        del caught
        gc.collect()
        assert seen() is None


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("options", [{}, {"concurrency": 2}])
async def test_law_3_note_names_the_item(is_fused: bool, options: dict[str, Any]) -> None:
    async def fails(item: Any) -> None:
        await asyncio.sleep(0)
        raise LookupError

    def plain(item: Any) -> Any:
        raise LookupError

    items: list[Any] = ["x" * 1_000_000, [["y" * 1_000]] * 1_000_000, {"url": 3}]
    expected = [f"'{'x' * 56}...", f"[['{'y' * 54}...", "{'url': 3}"]
    functions: list[Callable[[Any], Any]] = [fails, plain]
    for fn in functions:
        stream: PullObj[Any] = SourceIterObj(items).map(lambda item: item)
        if not is_fused:
            stream = stream.prefetch(1)
        stream = stream.map(fn, **options)
        for shown in expected:
            with pytest.raises(LookupError) as caught:
                await anext(stream)
            assert caught.value.__notes__ == [f"raised by transform of PullMapObj: item {shown}"]
        await stream.aclose()


async def test_notes_of_a_shared_error_are_bounded() -> None:
    error = ValueError("shared")

    def fails(item: int) -> None:
        raise error

    stream = SourceIterObj(range(100)).map(fails)
    for _ in range(100):
        with pytest.raises(ValueError, match="shared"):
            await anext(stream)
    beginning = "raised by transform of PullMapObj: item"
    assert error.__notes__ == [f"{beginning} {n}" for n in (*range(7), 99)]


async def test_item_without_a_repr_is_named_by_its_class() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("mute")

    stream = SourceIterObj([Mute()]).map(wrong(negate))
    with pytest.raises(AttributeError) as caught:
        await anext(stream)
    assert caught.value.__notes__ == ["raised by transform of PullMapObj: item <Mute>"]
