"""`Cache`: stored results, keys and versions, times to live, and what it refuses."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import (
    CapacitySource,
    ClosedError,
    Rate,
    WouldDeadlock,
    current_lease,
)
from headrace.cache import Cache, CacheStats, CacheStore, LruStore
from tests.cache_support import Calls, cache_of, identity
from tests.support import quiet, until, wrong

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_hit_is_the_stored_result() -> None:
    calls = Calls()
    async with cache_of() as cache:
        ask = cache.wrap(calls)
        first = await ask("a")
        assert await ask("a") is first
        assert await ask("b") == ("b", "result")
        assert calls.begun == ["a", "b"]
        assert cache.stats() == CacheStats(hits=1, misses=2, flights=2, stored=2)


async def test_hit_does_not_suspend() -> None:
    async with cache_of() as cache:
        ask = cache.wrap(Calls())
        await ask("a")
        with pytest.raises(StopIteration) as ended:
            ask("a").send(None)
        assert ended.value.value == ("a", "result")


@pytest.mark.virtual
async def test_hit_takes_no_slot_and_no_quota() -> None:
    loop = asyncio.get_running_loop()
    node = CapacitySource({"slots": 1, "requests": Rate(1, per=60)}, clock=loop.time)
    cost = {"slots": 1, "requests": 1}
    async with cache_of() as cache:
        ask = cache.wrap(Calls(), capacity=node, cost=cost)
        await ask("a")
        start = loop.time()
        async with node.acquire({"slots": 1}):
            for _ in range(10):
                await ask("a")
        assert loop.time() == start
        await ask("b")
        assert loop.time() == start + 60


async def test_none_is_a_result() -> None:
    calls: list[int] = []

    async def nothing(item: int) -> None:
        calls.append(item)

    async with cache_of() as cache:
        ask = cache.wrap(nothing)
        assert await asyncio.gather(ask(1)) == await asyncio.gather(ask(1))
        assert calls == [1]


class Fruit(StrEnum):
    APPLE = "apple"


KEYS: list[Any] = [
    *("a", b"a", "", b"", 1, 0, -1, 10**5000, "1", "\ud800", (), ("a",), (("a",),), ("a", "b")),
    *(("ab",), ("a", b"b"), (("a", "b"), "c"), ("a", ("b", "c")), (1, 23), (12, 3), ("", "ab")),
    *("s1:a", ("s1:a", "b"), "apple"),
]


async def test_keys_are_told_apart() -> None:
    calls = Calls(iterations=0)
    async with cache_of() as cache:
        ask = cache.wrap(calls)
        for key in KEYS * 2:
            assert (await ask(key))[0] is key or key == ()
        assert calls.begun == KEYS
        # A subclass counts as its base.
        assert await ask(Fruit.APPLE) == ("apple", "result")
        assert await ask(wrong(True)) == (1, "result")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (None, r"got None \(NoneType\)"),
        (1.5, r"got 1.5 \(float\)"),
        (["a"], r"got \['a'\] \(list\)"),
        (("a", None), r"got None \(NoneType\) in \('a', None\) \(tuple\)"),
    ],
)
async def test_key_of_a_wrong_type_is_refused(key: Any, text: str) -> None:
    calls = Calls()
    async with cache_of() as cache:
        with pytest.raises(TypeError, match=f"key must return a str, bytes, int or tuple.*{text}"):
            await cache.wrap(calls)(key)
        assert calls.begun == []


async def test_error_of_key_is_raised() -> None:
    async with cache_of(key=lambda item: item["id"]) as cache:
        with pytest.raises(KeyError, match="id"):
            await cache.wrap(Calls())({})


async def test_key_gets_all_arguments() -> None:
    calls: list[Any] = []

    async def ask(prompt: str, *more: int, model: str = "small") -> str:
        calls.append((prompt, more, model))
        return f"{prompt} {model}"

    def key(prompt: str, *more: int, model: str = "small") -> tuple[str, str]:
        return prompt, model

    async with cache_of(key=key) as cache:
        asked = cache.wrap(ask)
        assert await asked("a", 1, 2) == await asked("a", 3, model="small") == "a small"
        assert await asked(prompt="a", model="large") == "a large"
        # A key of the function's own: all calls are one.
        assert await cache.wrap(ask, version="x", key=lambda *_, **__: 0)("b") == "b small"
    assert calls == [("a", (1, 2), "small"), ("a", (), "large"), ("b", (), "small")]


async def test_function_and_version_are_part_of_the_key() -> None:
    async def one(item: str) -> str:
        return f"{item} 1"

    async def two(item: str) -> str:
        return f"{item} 2"

    def with_prompt(prompt: str) -> Callable[[str], Any]:
        async def ask(item: str) -> str:
            return prompt + item

        return ask

    async with cache_of() as cache:
        assert [await cache.wrap(fn)("a") for fn in (one, two)] == ["a 1", "a 2"]
        # Their names differ, although the version is the same.
        assert [await cache.wrap(fn, version="1")("a") for fn in (one, two)] == ["a 1", "a 2"]
        assert [await cache.wrap(with_prompt(p))("a") for p in "xyx"] == ["xa", "ya", "xa"]
        assert cache.stats().hits == 1
        # An explicit version hides the difference, which is what it is for.
        versions = [await cache.wrap(with_prompt(p), version="1")("a") for p in "xy"]
        assert versions == ["xa", "xa"]


async def test_partial_arguments_are_part_of_the_key() -> None:
    async def ask(model: str, item: str) -> str:
        return model + item

    async with cache_of() as cache:
        small, large = (cache.wrap(functools.partial(ask, model)) for model in ("s", "l"))
        assert [await small("a"), await large("a"), await small("a")] == ["sa", "la", "sa"]
        assert cache.stats().hits == 1


@pytest.mark.virtual
async def test_law_10_ttl_is_on_the_clock_of_the_loop() -> None:
    calls = Calls()
    async with cache_of(ttl=10) as cache:
        ask = cache.wrap(calls)
        await ask("a")
        await asyncio.sleep(9.9)
        await ask("a")
        assert len(calls.begun) == 1
        await asyncio.sleep(0.2)
        await ask("a")
        assert len(calls.begun) == 2


async def test_lru_forgets_the_least_recently_used() -> None:
    calls = Calls()
    store = LruStore(2)
    async with cache_of(store) as cache:
        ask = cache.wrap(calls)
        for item in "abacabc":
            await ask(item)
            assert len(store) <= 2
        # "c" evicted "b", which evicted "c": "a" was always used before.
        assert calls.begun == ["a", "b", "c", "b", "c"]
    assert len(store) == 0


async def test_error_is_not_kept() -> None:
    calls = Calls(error=ValueError("no"))
    async with cache_of() as cache:
        ask = cache.wrap(calls)
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                await ask("a")
        calls.error = None
        assert await ask("a") == ("a", "result")
        assert len(calls.begun) == 3
        assert cache.stats().stored == 1


async def test_result_that_is_not_awaitable_is_refused() -> None:
    async with cache_of() as cache:
        with pytest.raises(
            TypeError, match=r"fn must be an async function: str returned 'a' \(str\)"
        ):
            await cache.wrap(wrong(str))("a")


async def test_wrapped_function_looks_like_the_function() -> None:
    async def ask(item: str) -> str:
        """Ask."""
        return item

    async with cache_of() as cache:
        wrapped = cache.wrap(ask)
        assert inspect.iscoroutinefunction(wrapped)
        assert (wrapped.__name__, wrapped.__doc__) == ("ask", "Ask.")
        assert inspect.signature(wrapped) == inspect.signature(ask)
        assert await headrace.amap(wrapped, ["a", "b", "a"], limit=2).collect() == ["a", "b", "a"]
        assert cache.stats().flights == 2


variable: ContextVar[str] = ContextVar("variable", default="none")


async def test_call_runs_in_the_context_of_the_first_caller() -> None:
    seen: list[str] = []
    calls = Calls(is_open=False)

    async def ask(item: str) -> str:
        seen.append(variable.get())
        variable.set("changed by the call")
        await calls(item)
        return item

    async with cache_of() as cache:
        asked = cache.wrap(ask)

        async def caller(name: str) -> None:
            variable.set(name)
            await asked("a")
            assert variable.get() == name

        callers = [asyncio.create_task(caller(name)) for name in ("first", "second")]
        await until(lambda: calls.begun)
        calls.open.set()
        await asyncio.gather(*callers)
    assert seen == ["first"]


async def test_call_has_its_lease() -> None:
    node = CapacitySource({"slots": 2, "tokens": Rate(100)})

    async def ask(item: str) -> str:
        current_lease().settle(tokens=7)
        assert node.held["slots"] == 1
        return item

    async with cache_of() as cache:
        await cache.wrap(ask, capacity=node, cost={"slots": 1, "tokens": 50})("a")
    held = node.held
    assert held["slots"] == 0
    assert held["tokens"] == pytest.approx(7, abs=1)


async def test_closing_ends_running_calls() -> None:
    node = CapacitySource(1)
    calls = Calls(is_open=False)
    cache = cache_of()
    ask = cache.wrap(calls, capacity=node)
    callers = [asyncio.create_task(ask(item)) for item in "aab"]
    await until(lambda: calls.begun)
    await cache.aclose()
    # The call of "b" waited for the slot.
    assert (calls.begun, calls.cancelled, calls.ended) == (["a"], ["a"], ["a"])
    assert node.held == node.waiting == 0
    for result in await asyncio.gather(*callers, return_exceptions=True):
        assert isinstance(result, ClosedError)
    with pytest.raises(ClosedError, match="the cache is closed"):
        await ask("c")
    await cache.aclose()


async def test_cancelled_closing_closes() -> None:
    calls = Calls(is_open=False, iterations=5)
    cache = cache_of()
    caller = asyncio.create_task(cache.wrap(calls)("a"))
    await until(lambda: calls.begun)
    closing = asyncio.create_task(cache.aclose())
    for _ in range(3):
        await asyncio.sleep(0)
        closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert calls.ended == ["a"]
    assert cache.closed
    with pytest.raises(ClosedError):
        await caller


async def test_last_caller_waits_for_the_end_while_the_cache_closes() -> None:
    calls = Calls(is_open=False, iterations=5)
    cache = cache_of()
    caller = asyncio.create_task(cache.wrap(calls)("a"))
    await until(lambda: calls.begun)
    closing = asyncio.create_task(cache.aclose())
    await until(lambda: calls.cancelled)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    # The clean-up was interrupted by one cancellation alone, and has ended.
    assert calls.cancelled == calls.cleaned == calls.ended == ["a"]
    await closing


async def test_closing_inside_a_call_is_refused() -> None:
    cache = cache_of()

    async def ask(item: str) -> str:
        with pytest.raises(WouldDeadlock, match="cannot close it"):
            await cache.aclose()
        return item

    assert await cache.wrap(ask)("a") == "a"
    await cache.aclose()


class Faulty:
    """A store that raises."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing

    def get(self, key: bytes, default: Any, /) -> Any:
        if "get" in self.failing:
            raise OSError("cannot get")
        return default

    def put(self, key: bytes, value: Any, ttl: float | None, /) -> None:
        if "put" in self.failing:
            raise OSError("cannot put")

    async def aclose(self) -> None:
        if "aclose" in self.failing:
            raise OSError("cannot close")


async def test_store_that_cannot_be_read_is_an_error_of_the_caller() -> None:
    calls = Calls()
    async with cache_of(Faulty("get")) as cache:
        with pytest.raises(OSError, match="cannot get"):
            await cache.wrap(calls)("a")
        assert calls.begun == []


async def test_store_that_refuses_a_result_is_warned_of_once() -> None:
    async with cache_of(Faulty("put")) as cache:
        ask = cache.wrap(Calls())
        with pytest.warns(RuntimeWarning, match=r"Calls is delivered, but not stored: cannot put"):
            assert await ask("a") == ("a", "result")
            await quiet()
        assert await ask("a") == ("a", "result")
        await quiet()
        assert cache.stats() == CacheStats(hits=0, misses=2, flights=2, stored=0)


async def test_error_of_closing_the_store_is_raised() -> None:
    with pytest.raises(OSError, match="cannot close"):
        async with cache_of(Faulty("aclose")):
            pass


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"store": 3}, TypeError, r"store must have the methods of CacheStore.*got 3 \(int\)"),
        ({"store": {}}, TypeError, "store must have"),
        ({"key": "id"}, TypeError, r"key must be callable, got 'id' \(str\)"),
        ({"ttl": "1"}, TypeError, "ttl must be a number"),
        ({"ttl": 0}, ValueError, "ttl must be positive, got 0"),
        ({"ttl": float("inf")}, ValueError, "ttl must be a finite number"),
    ],
)
def test_law_14_cache_refuses(options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Cache(**wrong({"store": LruStore(1), "key": identity, **options}))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"fn": 3}, TypeError, r"fn must be callable, got 3 \(int\)"),
        ({"key": "id"}, TypeError, "key must be callable or None, got 'id'"),
        ({"capacity": 3}, TypeError, "capacity must be a CapacitySource, got 3"),
        ({"cost": 2}, ValueError, "cost needs a capacity, got cost=2 without one"),
        ({"capacity": CapacitySource(1), "cost": 2}, ValueError, "cost"),
        ({"version": 3}, TypeError, r"version must be a str or None, got 3 \(int\)"),
    ],
)
def test_law_14_wrap_refuses(options: Any, error: type[Exception], text: str) -> None:
    fn = options.pop("fn", identity)
    with pytest.raises(error, match=text):
        cache_of().wrap(fn, **options)


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_law_14_lru_refuses(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_entries must be"):
        LruStore(size)


def test_stores_follow_the_protocol_and_are_not_copied() -> None:
    store = LruStore(3)
    cache = cache_of(store)
    assert isinstance(store, CacheStore)
    for one in (store, cache):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                duplicate(one)


async def test_repr_shows_the_store_and_the_counts() -> None:
    cache = cache_of(LruStore(3))
    ask = cache.wrap(Calls())
    await ask("a")
    await ask("a")
    assert repr(cache) == "<Cache: <LruStore: 1 of 3 entries>, 1 hits, 1 misses, open>"
    await cache.aclose()
    assert repr(cache) == "<Cache: <LruStore: 0 of 3 entries>, 1 hits, 1 misses, closed>"
