"""`ConcurrentSource`: the source that a `PullMapObj` with a `concurrency` pulls; it yields the results of the calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace._internal.tasks import warn_unclosed
from headrace.pull.source import SourceObj

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from headrace.pull._concurrent_map import ConcurrentMap
    from headrace.pull.base import PullObj

OUT = TypeVar("OUT")


class ConcurrentSource(SourceObj[OUT]):
    """A source of the results of a `ConcurrentMap`.

    The map holds no reference to this object. So dropping the stream finalizes it, and `__del__` cancels the calls.
    """

    def __init__(self, calls: ConcurrentMap[OUT]) -> None:
        super().__init__()
        self._calls = calls

    @property
    def source(self) -> PullObj[Any]:
        """The stream whose items are the arguments of the calls."""
        return self._calls.source

    def __anext__(self) -> Coroutine[Any, Any, OUT]:
        """Return the next result."""
        return self._calls.pull()

    async def aclose(self) -> None:
        """Cancel the calls, wait for them, and close the source."""
        await self._calls.close(self._calls.source.aclose)

    async def return_(self, value: Any = None) -> Any:
        """Close, and end the source with `return_`."""
        return await self._calls.close(lambda: self._calls.source.return_(value))

    async def throw(self, error: BaseException) -> Any:
        """Close, and end the source with `throw`."""
        if not isinstance(error, Exception):
            # Not thrown into the source: the driver's task would raise it, and thereby stop the event loop or be cancelled.
            await self.aclose()
            raise error
        return await self._calls.close(lambda: self._calls.source.throw(error))

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        return self._calls.restarting()

    def __del__(self) -> None:
        # If `__init__` raised, there is no `_calls`.
        calls: ConcurrentMap[Any] | None = getattr(self, "_calls", None)
        if calls is not None and calls.is_driven:
            calls.on_dropped()
            warn_unclosed(self)

    def __repr__(self) -> str:
        return repr(self._calls)
