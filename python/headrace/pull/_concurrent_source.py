"""The results of calls that run side by side: `map` with a `concurrency`, as a source of its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace._internal.tasks import warn_unclosed
from headrace._internal.validate import check_int
from headrace.pull._concurrent_map import DrivenCalls
from headrace.pull.source import SourceObj

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterator

    from headrace._core import MapKernel
    from headrace.pull.base import PullObj

OUT = TypeVar("OUT")


class Calls(SourceObj[OUT]):
    """The results of calls that run side by side, as a source for the stream that the user sees.

    It refers to the state, and nothing there to it: so one that was dropped is noticed.

    Args:
        source: What is pulled.
        kernel: What holds the callable.
        concurrency: How many calls may run at once.
        window: How many may run or wait to be delivered; `None` for twice the concurrency.
        ordered: Whether results come in the order of their items.
        raw: Whether what the callable returns is the result, awaitable or not.
        operator: The name of the operator, for messages.

    The numbers are those that `check` let pass.
    """

    def __init__(
        self,
        source: PullObj[Any],
        kernel: MapKernel,
        *,
        concurrency: int,
        window: int | None,
        ordered: bool,
        raw: bool,
        operator: str,
    ) -> None:
        super().__init__()
        self._state: DrivenCalls[OUT] = DrivenCalls(
            source, kernel, ordered=ordered, raw=raw, operator=operator
        )
        self._state.set_limits(concurrency, window)

    @property
    def source(self) -> PullObj[Any]:
        """The source."""
        return self._state.source

    @property
    def concurrency(self) -> int:
        """The maximum number of running calls, live."""
        return self._state.concurrency

    @concurrency.setter
    def concurrency(self, concurrency: int) -> None:
        check(concurrency, self._state.window)
        self._state.set_limits(concurrency, self._state.window)

    @property
    def window_size(self) -> int:
        """The maximum number of calls that run or wait to be delivered, live."""
        return self._state.held_at_most

    @window_size.setter
    def window_size(self, window: int | None) -> None:
        check(self._state.concurrency, window)
        self._state.set_limits(self._state.concurrency, window)

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
            # It is for the one who pulls: out of a task it would end the loop, or the task.
            await self.aclose()
            raise error
        return await self._state.close(lambda: self._state.source.throw(error))

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        return self._state.restarting()

    def __del__(self) -> None:
        # There is no `_state` after an `__init__` that raised.
        state: DrivenCalls[Any] | None = getattr(self, "_state", None)
        if state is not None and state.is_driven:
            state.abandon()
            warn_unclosed(self)

    def facts(self) -> Iterator[str]:
        """Describe the state, for `repr`."""
        return self._state.facts()

    def __repr__(self) -> str:
        return repr(self._state)


def check(concurrency: int, window: int | None) -> None:
    """Check `concurrency` and `window`.

    Raises:
        TypeError: One is not an integer.
        ValueError: `concurrency` is not positive, or `window` less than it.
    """
    check_int("concurrency", 1, concurrency)
    if window is None:
        return
    check_int("window", 1, window)
    if window < concurrency:
        raise ValueError(f"window must be at least concurrency ({concurrency}), got {window} (int)")
