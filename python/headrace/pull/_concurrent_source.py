"""`ConcurrentSource`: the results of concurrent calls, as the source of the stream of a `map` with a `concurrency`."""

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
    """The results of a `ConcurrentMap`, as the source of the stream that the user sees.

    It refers to the state, and nothing in the state refers to it, so that dropping the stream finalises it.
    """

    def __init__(self, state: ConcurrentMap[OUT]) -> None:
        super().__init__()
        self._state = state

    @property
    def source(self) -> PullObj[Any]:
        """The source."""
        return self._state.source

    def __anext__(self) -> Coroutine[Any, Any, OUT]:
        """Return the next result."""
        return self._state.pull()

    async def aclose(self) -> None:
        """Cancel the calls, wait for them, and close the source."""
        await self._state.close(self._state.source.aclose)

    async def return_(self, value: Any = None) -> Any:
        """Close, and end the source with `return_`."""
        return await self._state.close(lambda: self._state.source.return_(value))

    async def throw(self, error: BaseException) -> Any:
        """Close, and end the source with `throw`."""
        if not isinstance(error, Exception):
            # Raised to the caller: raised by a task, it would end the loop or that task.
            await self.aclose()
            raise error
        return await self._state.close(lambda: self._state.source.throw(error))

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        return self._state.restarting()

    def __del__(self) -> None:
        # There is no `_state` after an `__init__` that raised.
        state: ConcurrentMap[Any] | None = getattr(self, "_state", None)
        if state is not None and state.is_driven:
            state.on_dropped()
            warn_unclosed(self)

    def __repr__(self) -> str:
        return repr(self._state)
