"""`Combination`: many sources as one, the state behind the combiner and the operators with many sources.

A native `Merge` holds the sources, polls them and closes them. A view of it, a `MergeView`, takes their items by a
policy: round-robin, in order of arrival, or in rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast

from headrace._core import Merge, MergeView
from headrace._internal.error_notes import as_group
from headrace._internal.reprs import describe_value, pluralize
from headrace._internal.tasks import wait_until_done, warn_unclosed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import TypedDict

    from headrace.pull.source import Source

T = TypeVar("T")

ErrorPolicy: TypeAlias = Literal["raise", "skip", "stop"]
"""The effect of a source's error: a pull raises it and the stream continues; it is dropped; it is raised and the stream ends."""

if TYPE_CHECKING:

    class MergeOptions(TypedDict, total=False):
        """The options of every operator with many sources."""

        prefetch: int
        errors: ErrorPolicy

    class ZipOptions(MergeOptions, total=False):
        """The options of a zip whose rows are all complete."""

        strict: bool
        longest: Literal[False]


class Combination(Generic[T]):
    """A merge, shared by the streams that take from it. When the last of them is dropped, its sources are closed.

    Args:
        owner: The operator, for messages.
        sources: The sources.
        labels: One for each source, delivered with its items.
        cutoffs: Sources whose first item ends the stream.
        prefetch: How many items of each source may wait.
        errors: The effect of a source's error.
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
        for parameter, source in parts:
            check(owner, parameter, source)
            if (first := seen.setdefault(id(source), parameter)) != parameter:
                raise ValueError(
                    f"{owner}: {parameter} must not be {first} again, {source!r}: its items would be split; give each a branch of its tee()"
                )
        # Source numbers by label: the sources given at construction, which a restart keeps, and the added ones, of which some
        # may have ended. `_most_added` is the number of added ones at which the ended ones are removed.
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
    def sources_by_label(self) -> dict[Any, Source[T]]:
        """The sources that have not ended, by label."""
        return dict(zip(self.merge.labels(), self.merge.sources(), strict=True))

    def add(self, source: Source[T], *label: Any) -> None:
        """Add a source. It is pulled from the next pull on."""
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

    def source_by_label(self, label: Any) -> Source[T]:
        """Return the source with this label.

        Raises:
            KeyError: No open source has this label.
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
        """Remove the labels of added sources that have ended; amortised O(1) per added source."""
        self._added = {
            label: number
            for label, number in self._added.items()
            if self.merge.source(number) is not None
        }
        self._most_added = max(64, 2 * len(self._added))

    async def remove(self, source: Source[T]) -> None:
        """Remove a source and close it, in its own task."""
        task = self.merge.remove(source)
        cancellation = None if task is None else await wait_until_done(task)
        error = self.merge.take_removal_error(source)
        if cancellation is not None:
            raise cancellation from error
        if error is not None:
            raise error

    def view(self, policy: str, title: str, **options: Any) -> MergeView:
        """Return a view of the merge."""
        self._title = title
        return MergeView(self.merge, policy, **options)

    def __del__(self) -> None:
        # There is no merge after an `__init__` that raised.
        merge: Merge | None = getattr(self, "merge", None)
        if merge is not None:
            merge.abandon()
            if merge.is_running:
                warn_unclosed(self)

    def __repr__(self) -> str:
        return f"<{self._title} of {self.merge.size} sources>"


class LiveSources(Generic[T]):
    """The sources of a combination, which may be added and removed while it runs."""

    __slots__ = ()

    _combination: Combination[T]

    @property
    def sources(self) -> tuple[Source[T], ...]:
        """The sources that have not ended, in the order in which they were added; see `add` and `remove`."""
        return self._combination.sources

    def add(self, source: Source[T]) -> None:
        """Add a source. It is pulled from the next pull on.

        Raises:
            TypeError: The source cannot be iterated.
            ValueError: The source is present already, or pulls from this stream itself.
            ClosedError: The end was reached, or this object was closed.
        """
        self._combination.add(source)

    async def remove(self, source: Source[T]) -> None:
        """Remove a source and close it, in its own task. Its prefetched items are dropped.

        Cancel safety: the source is removed and will be closed; a cancellation is raised after
        that.

        Raises:
            ValueError: The argument is not one of the sources.
            BaseException: The error that the source raised when it was closed.
        """
        await self._combination.remove(source)


async def _closed(merge: Merge) -> None:
    """Close the remaining sources and raise their errors."""
    cancellation = await wait_until_done(*merge.start_closing())
    errors = merge.closing_errors()
    error = as_group(errors, "several sources raised when they were closed") if errors else None
    if cancellation is not None:
        raise cancellation from error
    if error is not None:
        raise error


def check_unpacked(owner: str, source: object) -> None:
    """Refuse a list of streams where each stream is an argument of its own.

    Raises:
        TypeError: `source` is such a list.
    """
    if not isinstance(source, (list, tuple, set, frozenset)):
        return
    streams = cast("Collection[object]", source)
    if streams and all(isinstance(each, AsyncIterable) for each in streams):
        raise TypeError(
            f"{owner}: sources must be given one by one, got a {type(streams).__name__} of "
            f"{pluralize(len(streams), 'stream')}; unpack it: {owner}(*streams)"
        )


def check(owner: str, parameter: str, source: object) -> None:
    """Check that a source can be iterated.

    Raises:
        TypeError: It cannot be iterated.
    """
    # The checks below narrow the type of `source`.
    kind, given = type(source), source
    # Not `isinstance(..., Iterable)`: a class with `__getitem__` alone can be iterated too.
    if not isinstance(source, AsyncIterable) and (
        isinstance(source, Coroutine)
        or not any(hasattr(kind, name) for name in ("__iter__", "__getitem__"))
    ):
        from headrace._internal.hints import for_source

        raise TypeError(
            f"{owner}: {parameter} must be an iterable or an async iterable, not {describe_value(given)}{for_source(given)}"
        )
