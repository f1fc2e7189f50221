"""Many streams into one.

The sources, what drives them and what closes them are one native `Merge`; in which order their items are taken is a
view of it. `Combination` is what both the combiner here and the operators in `headrace.pull` hold: a merge, and the
notice of its being dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeAlias, TypeVar, cast

from headrace._core import Merge, MergeFeed
from headrace._internal.copying import Uncopied
from headrace._internal.error_notes import as_one
from headrace._internal.reprs import counted, shown, told
from headrace._internal.tasks import settled
from headrace._internal.unclosed import warn_unclosed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from types import TracebackType

    from headrace.pull.base import PullObj
    from headrace.pull.source import Source

__all__ = ["AsyncIteratorCombiner", "Combination", "ErrorPolicy"]

T = TypeVar("T")

ErrorPolicy: TypeAlias = Literal["raise", "skip", "stop"]
"""What an error of a source does: a pull raises it and the stream goes on; it is dropped; it is raised and the stream ends."""


class AsyncIteratorCombiner(Uncopied, Generic[T]):
    """Takes several streams as one, in any of several ways.

    All ways share the sources: what one takes, the others do not get. Nothing runs before the first pull. Native
    sources and sync iterables are polled in place; any other gets one asyncio task and one context for its whole life,
    under which it is stepped and closed, so that context variables, timeouts and task groups inside it work as if it
    ran alone. A source that ended is closed at once, the others by `aclose()` of the combiner or of one of its streams,
    or at the end of `async with`.

    Bound: `prefetch` items of each source are read ahead, the next one by the pull after that which took one. With
        `prefetch=1` a source that has given everything at once so far is asked when there is nothing else to be taken:
        to ask it before would win nothing.
    Cost: O(1) an item; one asyncio task a source that is not native, while it lasts.
    Cancel safety: a cancelled pull loses nothing.

    Args:
        *sources: pull objects, async iterables or iterables, one at least, each given once.
        prefetch: how many items of each source may wait to be taken.
        errors: `"raise"`: a pull raises it, the same object with a note that names the source, and the stream goes
            on, with that source too if it can; `"skip"`: it is dropped; `"stop"`: the stream ends with it.

    Raises:
        TypeError: if a source cannot be iterated, the only argument is a list of streams, or `prefetch` is no integer.
        ValueError: if there is no source, or one is given twice: its items would be split between two readers; if
            `prefetch` is less than 1, or `errors` none of the three.
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
        """How many sources have not ended."""
        return self._combination.merge.size

    @property
    def sources(self) -> tuple[Source[T], ...]:
        """The sources that have not ended, in the order in which they came."""
        return self._combination.sources

    def add(self, source: Source[T]) -> None:
        """Adds a source, for the next pull.

        Raises:
            TypeError: it cannot be iterated.
            ValueError: it is one of the sources already, or takes from this one itself.
            ClosedError: the end was reached, or the combiner closed.
        """
        self._combination.add(source)

    async def remove(self, source: Source[T]) -> None:
        """Takes a source out and closes it, in its own task. What was read ahead of it is dropped.

        Raises:
            ValueError: it is none of the sources.
            BaseException: what it raised when it was closed.

        Cancel safety: it is out and will be closed; a cancellation is raised once it is.
        """
        await self._combination.remove(source)

    def race_generator(self) -> PullObj[T]:
        """The items of all sources, as they come. Called again, it gives the same stream.

        Order: as the items came; among M sources that are always ready, each gives its item within M pulls. Items of
        one source stay in order.
        """
        return self._stream("merge", "race_generator")

    def round_robin_generator(self) -> PullObj[T]:
        """One item of each source in turn; those that ended are left out. Called again, it gives the same stream."""
        return self._stream("round_robin", "round_robin_generator")

    async def all(self) -> tuple[T, ...]:
        """One item of each source, like one step of `zip`.

        Where one source ends, there is none any more; what the others gave stays for other ways of taking it.

        Raises:
            StopAsyncIteration: a source has ended.
        """
        return cast("tuple[T, ...]", await anext(self._stream("zip_open", "all")))

    async def race(self) -> T:
        """The first item that comes, of any source.

        Raises:
            StopAsyncIteration: all sources have ended.
        """
        return await anext(self.race_generator())

    async def any(self) -> T:
        """The first item that comes, whatever fails before it.

        Raises:
            StopAsyncIteration: all sources have ended.
            BaseException: all of them failed: the error, or a group of the errors of all.
        """
        return cast("T", await anext(self._stream("any", "any")))

    async def aclose(self) -> None:
        """Closes every source in its own task, and waits until that is done. Idempotent.

        Raises:
            BaseException: what a source raised when it was closed, with a note that names the source; the errors of
                several in an `ExceptionGroup`.

        Cancel safety: a cancellation is raised when all is closed, not before.
        """
        await self.race_generator().aclose()

    async def __aenter__(self) -> Self:
        """The combiner; its sources are closed at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the sources."""
        await self.race_generator().__aexit__(kind, error, traceback)

    def _stream(self, policy: str, name: str) -> PullObj[Any]:
        # The streams are a room above this one, which is entered when one is asked for.
        from headrace.pull.merge import combined

        if policy not in self._streams:
            self._streams[policy] = combined(self._combination, policy, name)
        return self._streams[policy]

    def __repr__(self) -> str:
        return told(type(self).__name__, self._facts())

    def _facts(self) -> Iterator[str]:
        yield counted(self.size, "source")
        yield "running" if self._combination.merge.is_running else "idle"


class Combination(Generic[T]):
    """A merge, held by everybody who takes from it: when the last of them is gone, its sources are closed.

    Args:
        owner: what the sources belong to, for messages.
        sources: the sources.
        labels: one for each, with which its items come.
        cutoffs: sources whose first item ends everything.
        prefetch: how many items of each may wait.
        errors: what an error of a source does.
    """

    def __init__(
        self,
        owner: str,
        sources: Iterable[Source[T]],
        *,
        labels: Iterable[Any] | None = None,
        cutoffs: Iterable[Source[Any]] = (),
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> None:
        self._owner = owner
        self._title = owner
        self.merge: Merge = Merge(owner, _closed, prefetch=prefetch, errors=errors)
        sources, cutoffs = tuple(sources), tuple(cutoffs)
        names = tuple(range(len(sources)) if labels is None else labels)
        if not sources:
            raise ValueError(f"{owner}: sources must be one stream at least, got none")
        if labels is None and len(sources) == 1 and not cutoffs:
            check_unpacked(owner, sources[0])
        seen: dict[int, str] = {}
        parts = [
            (f"sources[{name!r}]", source) for name, source in zip(names, sources, strict=True)
        ]
        parts += [(f"cutoffs[{number}]", source) for number, source in enumerate(cutoffs)]
        for place, source in parts:
            check(owner, place, source)
            if (first := seen.setdefault(id(source), place)) != place:
                raise ValueError(
                    f"{owner}: {place} must not be {first} again, {source!r}: its items would be split; give each a branch of its tee()"
                )
        # The numbers of sources by their labels: of those that were given, with which a new cycle begins, and of those that were
        # added, of which some may have ended; and how many these may be before such are forgotten.
        self._given: dict[Any, int] = {}
        self._added: dict[Any, int] = {}
        self._most_added = 64
        for name, source in zip(names, sources, strict=True):
            if labels is None:
                self.merge.add(source, is_given=True)
            else:
                self._given[name] = self.merge.add(source, name, is_given=True)
        for source in cutoffs:
            self.merge.add(source, is_given=True, is_cutoff=True)

    @property
    def sources(self) -> tuple[Source[T], ...]:
        """The sources that have not ended, in their order."""
        return self.merge.sources()

    @property
    def labelled(self) -> dict[Any, Source[T]]:
        """The sources that have not ended, by their labels."""
        return dict(zip(self.merge.labels(), self.merge.sources(), strict=True))

    def add(self, source: Source[T], *label: Any) -> None:
        """Adds a source, for the next pull."""
        check(self._owner, "source", source)
        if self.merge.holds(source):
            raise ValueError(
                f"{self._owner}: source is one of the sources already, {source!r}: its items would be split; "
                "give each a branch of its tee()"
            )
        if label and self._find(label[0]) is not None:
            raise ValueError(f"{self._owner}: label is taken already, got {label[0]!r}")
        number = self.merge.add(source, *label)
        if label:
            self._added[label[0]] = number
            if len(self._added) > self._most_added:
                self._tidy()

    def labelled_as(self, label: Any) -> Source[T]:
        """The source with this label.

        Raises:
            KeyError: There is none that has not ended.
        """
        if (source := self._find(label)) is None:
            raise KeyError(label)
        return source

    def _find(self, label: Any) -> Source[T] | None:
        for numbers in (self._added, self._given):
            number = numbers.get(label)
            source: Source[T] | None = None if number is None else self.merge.source(number)
            if source is not None:
                return source
        return None

    def _tidy(self) -> None:
        """Forgets the labels of added sources that have ended: so seldom that it costs little for each that comes."""
        self._added = {
            label: number
            for label, number in self._added.items()
            if self.merge.source(number) is not None
        }
        self._most_added = max(64, 2 * len(self._added))

    async def remove(self, source: Source[T]) -> None:
        """Takes a source out and closes it, in its own task."""
        task = self.merge.remove(source)
        struck = None if task is None else await settled(task)
        error = self.merge.parting_error(source)
        if struck is not None:
            raise struck from error
        if error is not None:
            raise error

    def feed(self, policy: str, title: str, **options: Any) -> MergeFeed:
        """A view of the merge."""
        self._title = title
        return MergeFeed(self.merge, policy, **options)

    def __del__(self) -> None:
        # There is no merge after an `__init__` that raised.
        merge: Merge | None = getattr(self, "merge", None)
        if merge is not None:
            merge.abandon()
            if merge.is_running:
                warn_unclosed(self)

    def __repr__(self) -> str:
        return f"<{self._title} of {self.merge.size} sources>"


async def _closed(merge: Merge) -> None:
    """Closes what is left of the sources; raises what went wrong with that."""
    struck = await settled(*merge.shut())
    errors = merge.errors()
    error = as_one(errors, "several sources raised when they were closed") if errors else None
    if struck is not None:
        raise struck from error
    if error is not None:
        raise error


def check_unpacked(owner: str, source: object) -> None:
    """Refuse a list of streams where each stream is an argument of its own.

    Raises:
        TypeError: it is one.
    """
    if not isinstance(source, (list, tuple, set, frozenset)):
        return
    streams = cast("Collection[object]", source)
    if streams and all(isinstance(each, AsyncIterable) for each in streams):
        raise TypeError(
            f"{owner}: sources must be given one by one, got a {type(streams).__name__} of "
            f"{counted(len(streams), 'stream')}; unpack it: {owner}(*streams)"
        )


def check(owner: str, parameter: str, source: object) -> None:
    """Refuses what cannot be iterated.

    Raises:
        TypeError: it cannot.
    """
    kind = type(source)
    # Not `isinstance(..., Iterable)`: a class with `__getitem__` alone can be iterated too.
    if not isinstance(source, AsyncIterable) and not any(
        hasattr(kind, name) for name in ("__iter__", "__getitem__")
    ):
        raise TypeError(
            f"{owner}: {parameter} must be an iterable or an async iterable, not {shown(source)}"
        )
