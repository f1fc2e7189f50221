"""Operators with many sources: concat, zip, round-robin and merge.

`PullObj.concat()`, `zip()`, `round_robin()`, `merge()` and `take_until()` create them.

Each holds a `Combination` of its sources and takes items from it by a policy; the classes differ in the policy. `labeled` has their
counterparts that yield items with labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast, overload

from headrace._core import check_restart
from headrace._internal.reprs import describe_value, pluralize
from headrace.pull._combination import Combination, LiveSources
from headrace.pull.base import PullObj

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from typing import Unpack

    from headrace.pull._combination import ErrorPolicy, MergeOptions, ZipOptions
    from headrace.pull.source import Source

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")


class Combined(PullObj[T_co], stock=True):
    """A stream over a combination of sources."""

    def __init__(
        self, combination: Combination[Any], policy: str, title: str, **options: Any
    ) -> None:
        self._combination = combination
        super().__init__(combination.view(policy, title, **options))

    @property
    def sources(self) -> Any:
        """The sources that have not ended."""
        return self._combination.sources

    def _repr_parts(self) -> Iterator[str]:
        yield pluralize(self._combination.merge.size, "source")
        yield from super()._repr_parts()

    def _restarting(self) -> Generator[PullObj[Any], None, None]:
        check_restart(self)
        yield from self._combination.merge.restarting()
        yield from super()._restarting()

    @property
    def _merged(self) -> tuple[Any, ...]:
        """The sources that are polled in place; see `headrace._internal.depth`."""
        return self._combination.sources


class OwnSources(Combined[T_co], stock=True):
    """A stream that owns its combination. A subclass names the policy by which items are taken."""

    _policy: ClassVar[str]

    def _combine(
        self,
        sources: Iterable[Source[Any]],
        *,
        policy: str | None = None,
        labels: Iterable[Any] | None = None,
        cutoffs: Iterable[Source[Any]] = (),
        prefetch: int,
        errors: ErrorPolicy,
        **options: Any,
    ) -> None:
        """Make the combination. Called by `__init__`."""
        name = type(self).__name__
        combination: Combination[Any] = Combination(
            name, sources, labels=labels, cutoffs=cutoffs, prefetch=prefetch, errors=errors
        )
        super().__init__(combination, policy or self._policy, name, **options)


class _Sources(LiveSources[T], OwnSources[T_co], Generic[T, T_co], stock=True):
    """A stream with a live list of sources."""

    def __init__(
        self, *sources: Source[T], prefetch: int = 1, errors: ErrorPolicy = "raise"
    ) -> None:
        self._combine(sources, prefetch=prefetch, errors=errors)


class PullConcatObj(_Sources[T, T], stock=True):
    """All items of the first source, then all of the second, and so on.

    Law: `[x for source in sources for x in source]`.
    Order: the sources', one after another.
    Bound: one item, or `prefetch`, of the current source; the others have not started.
    Cost: O(1) per item; one asyncio task for a source that is not native, until that source ends.
    Cancel safety: a cancelled pull loses no item.

    Args:
        *sources: Pull objects or iterables, sync or async; at least one, each once.
        prefetch: The maximum number of prefetched items.
        errors: The effect of an error of a source: `"raise"`, `"skip"` or `"stop"`; see `PullRaceObj`.

    Raises:
        TypeError: A source is not iterable, the only argument is a list of streams, or `prefetch` is not an integer.
        ValueError: There is no source, one is given twice, `prefetch` is less than 1, or `errors` is none of the three.
    """

    _policy = "concat"


class PullZipObj(_Sources[Any, T_co], stock=True):
    """One item of each source, as a tuple.

    Law: `list(zip(*sources))`; with `longest`, `list(itertools.zip_longest(*sources,
    fillvalue=fill))`. All sources are pulled at once, so that the items of an incomplete row are dropped at the end.
    Order: the order of the sources, within a row and between rows.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) per item of a source; one asyncio task per source that is not native, until that source ends.
    Cancel safety: a cancelled pull loses no item.

    An error of a source drops its row, so that the sources stay aligned.

    Args:
        *sources: Pull objects or iterables, sync or async; at least one, each once.
        strict: Whether sources of different lengths are an error.
        longest: Whether to continue until all sources have ended.
        fill: With `longest`, the value in place of the items of an ended source.
        prefetch: The maximum number of prefetched items per source.
        errors: The effect of an error of a source: `"raise"`, `"skip"` or `"stop"`; see `PullRaceObj`.

    Raises:
        TypeError: A source is not iterable, the only argument is a list of streams, or `prefetch` is not an integer.
        ValueError: There is no source, one is given twice, both `strict` and `longest` are given,
            `fill` is given without `longest`, `prefetch` is less than 1, or `errors` is none of the three. At a pull,
            with `strict`: some sources ended before others; the message names them.
    """

    @overload
    def __init__(
        self: PullZipObj[tuple[A]], a: Source[A], /, **options: Unpack[ZipOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: PullZipObj[tuple[A, B]], a: Source[A], b: Source[B], /, **options: Unpack[ZipOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: PullZipObj[tuple[A, B, C]],
        a: Source[A],
        b: Source[B],
        c: Source[C],
        /,
        **options: Unpack[ZipOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: PullZipObj[tuple[A, B, C, D]],
        a: Source[A],
        b: Source[B],
        c: Source[C],
        d: Source[D],
        /,
        **options: Unpack[ZipOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: PullZipObj[tuple[A, B, C, D, E]],
        a: Source[A],
        b: Source[B],
        c: Source[C],
        d: Source[D],
        e: Source[E],
        /,
        **options: Unpack[ZipOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: PullZipObj[tuple[Any, ...]],
        *sources: Source[Any],
        strict: bool = ...,
        longest: bool = ...,
        fill: Any = ...,
        **options: Unpack[MergeOptions],
    ) -> None: ...
    def __init__(
        self,
        *sources: Source[Any],
        strict: bool = False,
        longest: bool = False,
        fill: Any = None,
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> None:
        policy = zip_policy(strict=strict, longest=longest, fill=fill)
        self._combine(sources, policy=policy, prefetch=prefetch, errors=errors, fill=fill)


def zip_policy(*, strict: bool, longest: bool, fill: Any) -> str:
    """Return the merge policy for the options of a zip.

    Raises:
        ValueError: The options contradict each other.
    """
    if strict and longest:
        raise ValueError("strict must not be true together with longest, got True and True")
    if fill is not None and not longest:
        raise ValueError(f"fill has no meaning without longest=True, got {fill!r}")
    return "zip_strict" if strict else "zip_longest" if longest else "zip"


class PullRoundRobinObj(_Sources[T, T], stock=True):
    """One item of each source in turn; ended sources are skipped.

    Law: the items of the first round, of the second, and so on; each source once a round.
    Order: the order of the sources, in each round. All are pulled at once; a slow source is waited for.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) per item; one asyncio task per source that is not native, until that source ends.
    Cancel safety: a cancelled pull loses no item.

    Args:
        *sources: Pull objects or iterables, sync or async; at least one, each once.
        prefetch: The maximum number of prefetched items per source.
        errors: The effect of an error of a source: `"raise"`, `"skip"` or `"stop"`; see `PullRaceObj`. An error
            counts as an item of its source.

    Raises:
        TypeError: A source is not iterable, the only argument is a list of streams, or `prefetch` is not an integer.
        ValueError: There is no source, one is given twice, `prefetch` is less than 1, or `errors` is none of the three.
    """

    _policy = "round_robin"


class PullRaceObj(_Sources[T, T], stock=True):
    """The items of all sources, merged in the order in which they arrive.

    Law: the items of all sources, each once; those of one source in its order.
    Order: the order of arrival. Among M sources that are always ready, each yields its item within M pulls; one that
    needs the event loop yields its item within one iteration.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) per item, whatever the number of sources; one asyncio task per source that is not native, until that
    source ends.
    Cancel safety: a cancelled pull loses no item.

    Args:
        *sources: Pull objects or iterables, sync or async; at least one, each once.
        prefetch: The maximum number of prefetched items per source.
        errors: The effect of an error of a source. `"raise"`: a pull raises it, the same object with a note that names
            the source, and the stream continues. `"skip"`: the error is dropped, and the source is pulled again.
            `"stop"`: the stream ends with the error.

    Raises:
        TypeError: A source is not iterable, the only argument is a list of streams, or `prefetch` is not an integer.
        ValueError: There is no source, one is given twice, `prefetch` is less than 1, or `errors` is none of the three.
    """

    _policy = "merge"


class PullRaceRobinObj(_Sources[T, T], stock=True):
    """The items of all sources in rounds: each source once per round, the fastest first.

    Law: the items of all sources, each once; those of one source in its order; in each round one item of each source
    that has not ended.
    Order: within a round, the order of arrival. A round ends when every source has yielded an item or ended.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) per item; one asyncio task per source that is not native, until that source ends.
    Cancel safety: a cancelled pull loses no item.

    Args:
        *sources: Pull objects or iterables, sync or async; at least one, each once.
        prefetch: The maximum number of prefetched items per source.
        errors: The effect of an error of a source: `"raise"`, `"skip"` or `"stop"`; see `PullRaceObj`. An error
            counts as an item of its source.

    Raises:
        TypeError: A source is not iterable, the only argument is a list of streams, or `prefetch` is not an integer.
        ValueError: There is no source, one is given twice, `prefetch` is less than 1, or `errors` is none of the three.
    """

    _policy = "merge_fair"


class PullRaceCutoffObj(_Sources[T, T], stock=True):
    """The items of one source, until another source yields one.

    Law: the items that `source` yielded before any of `cutoffs` yielded one.
    Order: the source's.
    Bound: one item, or `prefetch`, of the source; items not taken at the cutoff are dropped.
    Cost: O(1) per item; one asyncio task per source that is not native, until that source ends.
    Cancel safety: a cancelled pull loses no item.

    A cutoff that ends without an item has no effect; an error of a cutoff is treated as that of any source.

    Args:
        source: A pull object or an iterable, sync or async.
        *cutoffs: Pull objects or iterables, at least one; their first item ends the stream.
        error: The error to raise once at the cutoff; without it, the stream ends.
        prefetch: The maximum number of prefetched items.
        errors: The effect of an error of a source: `"raise"`, `"skip"` or `"stop"`; see `PullRaceObj`.

    Raises:
        TypeError: A source is not iterable, `error` is not an exception, or `prefetch` is not an integer.
        ValueError: There is no cutoff, a source is given twice, `prefetch` is less than 1, or `errors` is none of the
            three.
    """

    _policy = "merge"

    def __init__(
        self,
        source: Source[T],
        *cutoffs: Source[Any],
        error: BaseException | None = None,
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> None:
        name = type(self).__name__
        if not cutoffs:
            raise ValueError(f"{name}: cutoffs must be one stream at least, got none")
        if error is not None and not isinstance(cast("object", error), BaseException):
            raise TypeError(
                f"{name}: error must be an exception or None, got {describe_value(error)}"
            )
        self._combine((source,), cutoffs=cutoffs, prefetch=prefetch, errors=errors, error=error)
