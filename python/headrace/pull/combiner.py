"""`AsyncIteratorCombiner`: several streams as one, in any of several ways. User code creates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from headrace._internal.copying import Uncopied
from headrace._internal.reprs import ReprMixin, pluralize
from headrace.pull._combination import Combination, LiveSources
from headrace.pull.merge import Combined

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from headrace.pull._combination import ErrorPolicy
    from headrace.pull.base import PullObj
    from headrace.pull.source import Source

T = TypeVar("T")


class AsyncIteratorCombiner(LiveSources[T], ReprMixin, Uncopied):
    """Combine several streams into one, in any of several ways.

    All ways share the sources: an item taken by one is not available to the others. Nothing runs before the first pull.
    Native sources and sync iterables are polled in place. Any other source gets one asyncio task and one context for
    its whole life. It is stepped and closed in them, so that its context variables, timeouts and task groups work as if
    it ran alone. An ended source is closed immediately, the others by `aclose()` of the combiner or of one of its
    streams, or at the end of `async with`.

    Bound: `prefetch` items of each source are prefetched; a taken item is replaced by the next pull. With `prefetch=1`,
    a source that has never suspended so far is pulled only when no other item is available.
    Cost: O(1) per item; one asyncio task per source that is not native, until that source ends.
    Cancel safety: a cancelled pull loses no item.

    Args:
        *sources: Pull objects, async iterables or iterables, at least one, each once.
        prefetch: The maximum number of prefetched items per source.
        errors: The effect of an error of a source: `"raise"`, `"skip"` or `"stop"`; see `PullRaceObj`.

    Raises:
        TypeError: A source cannot be iterated, the only argument is a list of streams, or `prefetch` is not an
            integer.
        ValueError: There is no source, or one is given twice: its items would be split between two readers;
            `prefetch` is less than 1, or `errors` is none of the three.
    """

    def __init__(
        self, *sources: Source[T], prefetch: int = 1, errors: ErrorPolicy = "raise"
    ) -> None:
        self._combination: Combination[T] = Combination(
            type(self).__name__, sources, prefetch=prefetch, errors=errors
        )
        self._streams: dict[str, PullObj[Any]] = {}

    @property
    def size(self) -> int:
        """The number of sources that have not ended."""
        return self._combination.merge.size

    def race_generator(self) -> PullObj[T]:
        """Return a stream of the items of all sources, in the order of arrival. Every call returns the same stream.

        Order: the order of arrival; among M sources that are always ready, each yields its item within M pulls. Items
        of one source stay in order.
        """
        return self._stream("merge", "race_generator")

    def round_robin_generator(self) -> PullObj[T]:
        """Return a stream of one item of each source in turn, skipping ended ones. Every call returns the same stream."""
        return self._stream("round_robin", "round_robin_generator")

    async def all(self) -> tuple[T, ...]:
        """Return one item of each source, like one step of `zip`.

        Once a source has ended, no further tuple follows; the items of the others stay available to the other methods.

        Raises:
            StopAsyncIteration: A source has ended.
        """
        return cast("tuple[T, ...]", await anext(self._stream("zip_open", "all")))

    async def race(self) -> T:
        """Return the first item that any source yields.

        Raises:
            StopAsyncIteration: All sources have ended.
        """
        return await anext(self.race_generator())

    async def any(self) -> T:
        """Return the first item that any source yields, ignoring errors before it.

        Raises:
            StopAsyncIteration: All sources have ended.
            BaseException: All sources failed: the error, or a group of all errors.
        """
        return cast("T", await anext(self._stream("any", "any")))

    async def aclose(self) -> None:
        """Close every source in its own task, and wait until all are closed. Idempotent.

        Raises:
            BaseException: The error that a source raised when it was closed, with a note that names the source; several
                in an `ExceptionGroup`.

        Cancel safety: a cancellation is raised only after all sources are closed.
        """
        await self.race_generator().aclose()

    async def __aenter__(self) -> Self:
        """Return the combiner; its sources are closed at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the sources."""
        await self.race_generator().__aexit__(kind, error, traceback)

    def _stream(self, policy: str, name: str) -> PullObj[Any]:
        if policy not in self._streams:
            self._streams[policy] = Combined(self._combination, policy, name)
        return self._streams[policy]

    def _repr_parts(self) -> Iterator[str]:
        yield pluralize(self.size, "source")
        yield "running" if self._combination.merge.is_running else "idle"
