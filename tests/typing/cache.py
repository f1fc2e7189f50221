"""The types that a checker infers for `Cache.wrap`. Checked, never run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, assert_type

from headrace import CapacitySource
from headrace.cache import Cache, CacheStats, CacheStore, LruStore, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


async def ask(prompt: str, *, model: str = "small") -> int:
    return len(prompt + model)


def key(prompt: str, model: str = "small") -> tuple[str, str]:
    return prompt, model


async def caches() -> None:
    stores: list[CacheStore] = [LruStore(3), SqliteStore("results.db")]
    async with Cache(stores[0], key=key, ttl=3.5) as cache:
        assert_type(cache, Cache)
        assert_type(cache.stats(), CacheStats)
        asked = cache.wrap(ask, capacity=CapacitySource(3), cost={"slots": 1}, key=lambda *_: 1)
        assert_type(await asked("a", model="large"), int)
        one: Callable[[str], Coroutine[Any, Any, int]] = cache.wrap(partial(ask, model="large"))
        assert_type(await one("a"), int)
        # The parameters are those of the function.
        await asked(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await asked("a", temperature=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Cache(LruStore(3), key=lambda prompt: (prompt, 1.5))  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
