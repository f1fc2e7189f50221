"""Operators with many sources, whose items come with the label of their source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from headrace._internal.reprs import describe_value
from headrace.pull.merge import OwnSources, zip_policy

if TYPE_CHECKING:
    from headrace._core import PullLink
    from headrace.pull._combination import ErrorPolicy
    from headrace.pull.source import Source

K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)


class _Labelled(OwnSources[T_co], Generic[K, T, T_co], stock=True):
    """A stream with a live mapping of sources."""

    def __init__(
        self, sources: Mapping[K, Source[T]], *, prefetch: int = 1, errors: ErrorPolicy = "raise"
    ) -> None:
        self._combine_labelled(sources, prefetch=prefetch, errors=errors)

    def _combine_labelled(
        self,
        sources: Mapping[K, Source[T]],
        *,
        policy: str | None = None,
        prefetch: int,
        errors: ErrorPolicy,
        **options: Any,
    ) -> None:
        if not isinstance(cast("object", sources), Mapping):
            raise TypeError(
                f"{type(self).__name__}: sources must be a mapping of labels to streams, not {describe_value(sources)}"
            )
        self._combine(
            sources.values(),
            labels=sources.keys(),
            policy=policy,
            prefetch=prefetch,
            errors=errors,
            **options,
        )

    @property
    def sources(self) -> dict[K, Source[T]]:
        """The sources that have not ended, by their labels; see `add` and `remove`."""
        return self._combination.labelled

    def add(self, label: K, source: Source[T]) -> None:
        """Adds a source, for the next pull.

        Raises:
            TypeError: It cannot be iterated.
            ValueError: It is one of the sources already or takes from this one itself, or the label is taken.
            ClosedError: The stream has ended or was closed.
        """
        self._combination.add(source, label)

    async def remove(self, label: K) -> None:
        """Takes a source out and closes it, in its own task. What was read ahead of it is dropped.

        Cancel safety: it is out and will be closed; a cancellation is raised once it is.

        Raises:
            KeyError: There is no source of this label.
            BaseException: What it raised when it was closed.
        """
        await self._combination.remove(self._combination.labelled_as(label))


class PullLabeledZipObj(_Labelled[K, T, "tuple[tuple[K, T], ...]"], stock=True):
    """One item of each source, each as `(label, item)`, as a tuple: `dict(row)` has them by label.

    Law: the rows of `PullZipObj(*sources.values())`, with the label of its source beside each item.
    Order: the mapping's, in a row as between rows.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) an item of a source; one asyncio task a source that is not native, while it lasts.
    Cancel safety: a cancelled pull loses nothing.

    Args:
        sources: The sources by their labels: pull objects, or any iterables, sync or async.
        strict: Whether it is an error if they are not all of one length.
        longest: Whether it goes on until all have ended.
        fill: Stands for what a source has no more of, with `longest`.
        prefetch: How many items of each source may wait to be taken.
        errors: What an error of a source does; see `PullZipObj`.

    Raises:
        TypeError: `sources` is no mapping, a source is not iterable, or `prefetch` no integer.
        ValueError: As `PullZipObj` does.
    """

    def __init__(
        self,
        sources: Mapping[K, Source[T]],
        *,
        strict: bool = False,
        longest: bool = False,
        fill: Any = None,
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> None:
        policy = zip_policy(strict=strict, longest=longest, fill=fill)
        self._combine_labelled(sources, policy=policy, prefetch=prefetch, errors=errors, fill=fill)


class PullLabeledRoundRobinObj(_Labelled[K, T, "tuple[K, T]"], stock=True):
    """One `(label, item)` of each source in turn; those that ended are left out.

    Law: the items of `PullRoundRobinObj(*sources.values())`, each with the label of its source.
    Order: the mapping's, in each round.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) an item; one asyncio task a source that is not native, while it lasts.
    Cancel safety: a cancelled pull loses nothing.

    Args:
        sources: The sources by their labels: pull objects, or any iterables, sync or async.
        prefetch: How many items of each source may wait to be taken.
        errors: What an error of a source does; see `PullRoundRobinObj`.

    Raises:
        TypeError: `sources` is no mapping, a source is not iterable, or `prefetch` no integer.
        ValueError: As `PullRoundRobinObj` does.
    """

    _policy = "round_robin"


class PullLabeledRaceObj(_Labelled[K, T, "tuple[K, T]"], stock=True):
    """`(label, item)` for the items of all sources, as they come.

    Law: the items of `PullRaceObj(*sources.values())`, each with the label of its source.
    Order: as they came. Among M sources that are always ready, each gives its item within M pulls.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) an item, whatever the number of sources; one asyncio task a source that is not native, while it lasts.
    Cancel safety: a cancelled pull loses nothing.

    Args:
        sources: The sources by their labels: pull objects, or any iterables, sync or async.
        prefetch: How many items of each source may wait to be taken.
        errors: What an error of a source does; see `PullRaceObj`.

    Raises:
        TypeError: `sources` is no mapping, a source is not iterable, or `prefetch` no integer.
        ValueError: As `PullRaceObj` does.
    """

    _policy = "merge"


class PullLabeledRaceRobinObj(_Labelled[K, T, "tuple[K, T]"], stock=True):
    """`(label, item)` for the items of all sources in rounds, in each the fastest first.

    Law: the items of `PullRaceRobinObj(*sources.values())`, each with the label of its source.
    Order: in a round, as they came. A round ends when all have given an item or ended.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) an item; one asyncio task a source that is not native, while it lasts.
    Cancel safety: a cancelled pull loses nothing.

    Args:
        sources: The sources by their labels: pull objects, or any iterables, sync or async.
        prefetch: How many items of each source may wait to be taken.
        errors: What an error of a source does; see `PullRaceRobinObj`.

    Raises:
        TypeError: `sources` is no mapping, a source is not iterable, or `prefetch` no integer.
        ValueError: As `PullRaceRobinObj` does.
    """

    _policy = "merge_fair"


def beside(
    label: K, stream: PullLink[T], others: Mapping[K, Source[U]]
) -> dict[K, Source[T] | Source[U]]:
    """The sources of a labelled operator: a stream under its label, before the others.

    Raises:
        TypeError: `others` is no mapping, or `label` not hashable.
        ValueError: `label` is one of `others` too.
    """
    if not isinstance(cast("object", others), Mapping):
        raise TypeError(
            f"others must be a mapping of labels to streams, got {describe_value(others)}"
        )
    try:
        is_taken = label in others
    except TypeError as error:
        raise TypeError(f"label must be hashable, got {describe_value(label)}") from error
    if is_taken:
        raise ValueError(f"label must not be one of others, got {label!r}; give each its own")
    return {label: stream, **others}
