"""`CacheUse`: the use of a cache by the runs of a runner. The runner makes one, or the stream that makes the runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from headrace._internal.reprs import describe_value
from headrace.cache._call_key import CallKey
from headrace.cache.cache import Cache
from headrace.task.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from headrace.cache._flight import Flights

_MAX_FUNCTIONS = 256
"""The number of functions of a runner whose versions are remembered: a hash of code takes some 0.1 ms."""


class CacheUse:
    """The use of a cache by the runs of a runner.

    Args:
        cache: The cache.
        fn: The function of all tasks, if each is a call of it with the arguments of the task; None for the functions of the tasks.

    Raises:
        TypeError: `cache` is no `Cache`.
    """

    def __init__(self, cache: Cache, fn: Callable[..., Any] | None = None) -> None:
        if not isinstance(cast("object", cache), Cache):
            raise TypeError(
                f"cache must be a Cache, such as Cache(LruStore(10_000), key=...), got {describe_value(cache)}"
            )
        self.flights: Flights = cache._flights  # pyright: ignore[reportPrivateUsage]
        self._key = cache._key  # pyright: ignore[reportPrivateUsage]
        self._of_all = None if fn is None else CallKey(fn, self._key, None)
        # By the id of the function, with the function, so that its id stays its own.
        self._by_function: dict[int, tuple[object, CallKey]] = {}

    @classmethod
    def of(cls, cache: Cache | Self) -> CacheUse:
        """Return the use of a cache, or a use that several runners share."""
        return cache if isinstance(cache, CacheUse) else cls(cache)

    def identity(self, item: Any) -> bytes:
        """Return the key of a task in the store."""
        fn, args = (item.fn, item.args) if isinstance(item, Task) else (item, ())
        return (self._of_all or self._call_key(fn)).of(args, {})

    def _call_key(self, fn: Callable[..., Any]) -> CallKey:
        known = self._by_function.get(id(fn))
        if known is not None:
            return known[1]
        if len(self._by_function) >= _MAX_FUNCTIONS:
            self._by_function.clear()
        made = CallKey(fn, self._key, None)
        self._by_function[id(fn)] = fn, made
        return made
