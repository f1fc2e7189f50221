"""`Threaded`: a plain function that `amap` calls in threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace._internal.reprs import callable_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Threaded:
    """A plain function that is called in threads. If it returns an awaitable, the event loop runs that.

    Such a function only looks plain: `lambda url: fetch(url, client)` is one. Once it has returned an awaitable, the function is
    called on the event loop. The threads of the calls that had begun before wait for their awaitables.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, fn: Callable[[Any], Any], timeout: float | None) -> None:
        self.__name__ = callable_name(fn)
        self._fn = fn
        self._timeout = timeout
        self.is_async = False
        self._awaiting: set[asyncio.Task[Any] | None] = set()

    def __call__(self, item: Any) -> Any:
        result = self._fn(item)
        if not inspect.isawaitable(result):
            return result
        self.is_async = True
        if asyncio._get_running_loop() is not None:  # pyright: ignore[reportPrivateUsage]
            # Called on the event loop, where the pool awaits the result.
            return result
        try:
            return asyncio.run_coroutine_threadsafe(self._await(result), self.loop).result()
        except concurrent.futures.CancelledError:
            # The pool knows this one as a cancellation.
            raise asyncio.CancelledError from None

    def function(self) -> Callable[[Any], Any]:
        """Return this as a function: `Task` takes longer to check another callable."""

        def call(item: Any) -> Any:
            return self(item)

        call.__name__ = call.__qualname__ = self.__name__
        return call

    async def _await(self, awaitable: Awaitable[Any]) -> Any:
        task = asyncio.current_task()
        self._awaiting.add(task)
        try:
            # The pool cannot cancel a thread.
            async with asyncio.timeout(self._timeout):
                return await awaitable
        finally:
            self._awaiting.discard(task)

    def cancel(self) -> None:
        """Cancel the awaitables, so that no thread waits for one any more."""
        for task in self._awaiting:
            if task is not None:
                task.cancel()


def is_async(fn: Callable[..., Any]) -> bool:
    """Return whether a function is known to be async, or is an object whose `__call__` is."""
    while isinstance(fn, partial):
        fn = fn.func
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
        for one in (fn, type(fn).__call__)
    )
