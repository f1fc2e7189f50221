"""Operators with many sources whose items come with the label of their source.

`PullObj.zip_labeled()`, `round_robin_labeled()` and `merge_labeled()` create them.

They are the counterparts of the operators in `merge`: the same policies over a mapping of sources.
"""

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


class _LabeledSources(OwnSources[T_co], Generic[K, T, T_co], stock=True):
    """A stream that combines a live mapping of labels to sources."""

    def __init__(
        self, sources: Mapping[K, Source[T]], *, prefetch: int = 1, errors: ErrorPolicy = "raise"
    ) -> None:
        self._combine_labeled(sources, prefetch=prefetch, errors=errors)

    def _combine_labeled(
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
        """The sources that have not ended, by label; see `add` and `remove`."""
        return self._combination.sources_by_label

    def add(self, label: K, source: Source[T]) -> None:
        """Add a source. It is pulled from the next pull on.

        Raises:
            TypeError: The source cannot be iterated.
            ValueError: The source is present already or pulls from this stream itself, or the label is in use.
            ClosedError: The stream has ended or was closed.
        """
        self._combination.add(source, label)

    async def remove(self, label: K) -> None:
        """Remove a source and close it, in its own task. Its prefetched items are dropped.

        Cancel safety: the source is removed and will be closed; a cancellation is raised after
        that.

        Raises:
            KeyError: No source has this label.
            BaseException: The error that the source raised when it was closed.
        """
        await self._combination.remove(self._combination.source_by_label(label))


class PullLabeledZipObj(_LabeledSources[K, T, "tuple[tuple[K, T], ...]"], stock=True):
    """Tuples of one `(label, item)` pair per source: `dict(row)` has the items by label.

    Law: the rows of `PullZipObj(*sources.values())`, with each item as a pair with the label of its source.
    Order: the order of the mapping, within a row and between rows.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) per item of a source; one asyncio task per source that is not native, until that source ends.
    Cancel safety: a cancelled pull loses no item.

    Args:
        sources: The sources by label: pull objects, or any iterables, sync or async.
        strict: Whether sources of different lengths are an error.
        longest: Whether to continue until all sources have ended.
        fill: With `longest`, the value in place of the items of an ended source.
        prefetch: The maximum number of prefetched items per source.
        errors: The effect of a source's error; see `PullZipObj`.

    Raises:
        TypeError: `sources` is not a mapping, a source is not iterable, or `prefetch` is not an integer.
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
        self._combine_labeled(sources, policy=policy, prefetch=prefetch, errors=errors, fill=fill)


class PullLabeledRoundRobinObj(_LabeledSources[K, T, "tuple[K, T]"], stock=True):
    """One `(label, item)` of each source in turn; ended sources are skipped.

    Law: the items of `PullRoundRobinObj(*sources.values())`, each with the label of its source.
    Order: the mapping's, in each round.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) per item; one asyncio task per source that is not native, until that source ends.
    Cancel safety: a cancelled pull loses no item.

    Args:
        sources: The sources by label: pull objects, or any iterables, sync or async.
        prefetch: The maximum number of prefetched items per source.
        errors: The effect of a source's error; see `PullRoundRobinObj`.

    Raises:
        TypeError: `sources` is not a mapping, a source is not iterable, or `prefetch` is not an integer.
        ValueError: As `PullRoundRobinObj` does.
    """

    _policy = "round_robin"


class PullLabeledRaceObj(_LabeledSources[K, T, "tuple[K, T]"], stock=True):
    """`(label, item)` for the items of all sources, in the order of arrival.

    Law: the items of `PullRaceObj(*sources.values())`, each with the label of its source.
    Order: the order of arrival. Among M sources that are always ready, each yields its item within M pulls.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) per item, whatever the number of sources; one asyncio task per source that is not native, until that
    source ends.
    Cancel safety: a cancelled pull loses no item.

    Args:
        sources: The sources by label: pull objects, or any iterables, sync or async.
        prefetch: The maximum number of prefetched items per source.
        errors: The effect of a source's error; see `PullRaceObj`.

    Raises:
        TypeError: `sources` is not a mapping, a source is not iterable, or `prefetch` is not an integer.
        ValueError: As `PullRaceObj` does.
    """

    _policy = "merge"


class PullLabeledRaceRobinObj(_LabeledSources[K, T, "tuple[K, T]"], stock=True):
    """`(label, item)` for the items of all sources in rounds, the fastest first in each.

    Law: the items of `PullRaceRobinObj(*sources.values())`, each with the label of its source.
    Order: within a round, the order of arrival. A round ends when every source has yielded an item or ended.
    Bound: one item, or `prefetch`, of each source.
    Cost: O(1) per item; one asyncio task per source that is not native, until that source ends.
    Cancel safety: a cancelled pull loses no item.

    Args:
        sources: The sources by label: pull objects, or any iterables, sync or async.
        prefetch: The maximum number of prefetched items per source.
        errors: The effect of a source's error; see `PullRaceRobinObj`.

    Raises:
        TypeError: `sources` is not a mapping, a source is not iterable, or `prefetch` is not an integer.
        ValueError: As `PullRaceRobinObj` does.
    """

    _policy = "merge_fair"


def prepend_labeled(
    label: K, stream: PullLink[T], others: Mapping[K, Source[U]]
) -> dict[K, Source[T] | Source[U]]:
    """Return a mapping with `stream` under `label` first, followed by `others`.

    Raises:
        TypeError: `others` is not a mapping, or `label` is not hashable.
        ValueError: `label` is also in `others`.
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
