"""The methods of a pull stream that combine it with others. `Fluent` inherits them, and `PullObj` inherits `Fluent`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from headrace._core import PullLink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from headrace.pull._combination import ErrorPolicy, MergeOptions, ZipOptions
    from headrace.pull.labeled import (
        PullLabeledRaceObj,
        PullLabeledRaceRobinObj,
        PullLabeledRoundRobinObj,
        PullLabeledZipObj,
    )
    from headrace.pull.merge import (
        PullConcatObj,
        PullRaceCutoffObj,
        PullRaceObj,
        PullRaceRobinObj,
        PullRoundRobinObj,
        PullZipObj,
    )
    from headrace.pull.source import Source

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
K = TypeVar("K")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class MergeMethods(PullLink[T_co]):
    """Methods that combine a pull stream with others; use `PullObj`."""

    def concat(
        self, *others: Source[U], prefetch: int = 1, errors: ErrorPolicy = "raise"
    ) -> PullConcatObj[T_co | U]:
        """Yield the items of this stream, then those of each other one; see `PullConcatObj`."""
        from headrace.pull.merge import PullConcatObj

        return PullConcatObj(self, *others, prefetch=prefetch, errors=errors)

    @overload
    def zip(self, a: Source[A], /, **options: Unpack[ZipOptions]) -> PullZipObj[tuple[T_co, A]]: ...
    @overload
    def zip(
        self, a: Source[A], b: Source[B], /, **options: Unpack[ZipOptions]
    ) -> PullZipObj[tuple[T_co, A, B]]: ...
    @overload
    def zip(
        self, a: Source[A], b: Source[B], c: Source[C], /, **options: Unpack[ZipOptions]
    ) -> PullZipObj[tuple[T_co, A, B, C]]: ...
    @overload
    def zip(
        self,
        a: Source[A],
        b: Source[B],
        c: Source[C],
        d: Source[D],
        /,
        **options: Unpack[ZipOptions],
    ) -> PullZipObj[tuple[T_co, A, B, C, D]]: ...
    @overload
    def zip(
        self,
        *others: Source[Any],
        strict: bool = ...,
        longest: bool = ...,
        fill: Any = ...,
        **options: Unpack[MergeOptions],
    ) -> PullZipObj[tuple[Any, ...]]: ...
    def zip(
        self,
        *others: Source[Any],
        strict: bool = False,
        longest: bool = False,
        fill: Any = None,
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> PullZipObj[Any]:
        """Yield tuples with one item of this stream and of each other one; see `PullZipObj`."""
        from headrace.pull.merge import PullZipObj

        return PullZipObj(
            self,
            *others,
            strict=strict,
            longest=longest,
            fill=fill,
            prefetch=prefetch,
            errors=errors,
        )

    def round_robin(
        self, *others: Source[U], prefetch: int = 1, errors: ErrorPolicy = "raise"
    ) -> PullRoundRobinObj[T_co | U]:
        """Yield one item of this stream and of each other one in turn; see `PullRoundRobinObj`."""
        from headrace.pull.merge import PullRoundRobinObj

        return PullRoundRobinObj(self, *others, prefetch=prefetch, errors=errors)

    @overload
    def merge(
        self, *others: Source[U], fair: Literal[False] = ..., **options: Unpack[MergeOptions]
    ) -> PullRaceObj[T_co | U]: ...
    @overload
    def merge(
        self, *others: Source[U], fair: Literal[True], **options: Unpack[MergeOptions]
    ) -> PullRaceRobinObj[T_co | U]: ...
    @overload
    def merge(
        self, *others: Source[U], fair: bool, **options: Unpack[MergeOptions]
    ) -> PullRaceObj[T_co | U] | PullRaceRobinObj[T_co | U]: ...
    def merge(
        self,
        *others: Source[U],
        fair: bool = False,
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> PullRaceObj[T_co | U] | PullRaceRobinObj[T_co | U]:
        """Merge this stream with the others, in the order in which items arrive; see `PullRaceObj`.

        With `fair=True` each source yields one item per round; see `PullRaceRobinObj`.
        """
        from headrace.pull.merge import PullRaceObj, PullRaceRobinObj

        if fair:
            return PullRaceRobinObj(self, *others, prefetch=prefetch, errors=errors)
        return PullRaceObj(self, *others, prefetch=prefetch, errors=errors)

    def take_until(
        self,
        *cutoffs: Source[Any],
        error: BaseException | None = None,
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> PullRaceCutoffObj[T_co]:
        """Yield items until one of `cutoffs` yields one; see `PullRaceCutoffObj`."""
        from headrace.pull.merge import PullRaceCutoffObj

        return PullRaceCutoffObj(self, *cutoffs, error=error, prefetch=prefetch, errors=errors)

    def zip_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        strict: bool = False,
        longest: bool = False,
        fill: Any = None,
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> PullLabeledZipObj[K, T_co | U]:
        """Zip as `zip` does, with each item as `(label, item)`; see `PullLabeledZipObj`.

        This stream gets `label`: `prices.zip_labeled("prices", {"news": news})` is
        `PullLabeledZipObj({"prices": prices, "news": news})`.

        Raises:
            TypeError: `others` is not a mapping; or as the class does.
            ValueError: `label` is one of `others` too; or as the class does.
        """
        from headrace.pull.labeled import PullLabeledZipObj, prepend_labeled

        return PullLabeledZipObj(
            prepend_labeled(label, self, others),
            strict=strict,
            longest=longest,
            fill=fill,
            prefetch=prefetch,
            errors=errors,
        )

    def round_robin_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> PullLabeledRoundRobinObj[K, T_co | U]:
        """Alternate as `round_robin` does, with each item as `(label, item)`; see `PullLabeledRoundRobinObj`.

        This stream gets `label`: `prices.round_robin_labeled("prices", {"news": news})` is
        `PullLabeledRoundRobinObj({"prices": prices, "news": news})`.

        Raises:
            TypeError: `others` is not a mapping; or as the class does.
            ValueError: `label` is one of `others` too; or as the class does.
        """
        from headrace.pull.labeled import PullLabeledRoundRobinObj, prepend_labeled

        return PullLabeledRoundRobinObj(
            prepend_labeled(label, self, others), prefetch=prefetch, errors=errors
        )

    @overload
    def merge_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        fair: Literal[False] = ...,
        **options: Unpack[MergeOptions],
    ) -> PullLabeledRaceObj[K, T_co | U]: ...
    @overload
    def merge_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        fair: Literal[True],
        **options: Unpack[MergeOptions],
    ) -> PullLabeledRaceRobinObj[K, T_co | U]: ...
    @overload
    def merge_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        fair: bool,
        **options: Unpack[MergeOptions],
    ) -> PullLabeledRaceObj[K, T_co | U] | PullLabeledRaceRobinObj[K, T_co | U]: ...
    def merge_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        fair: bool = False,
        prefetch: int = 1,
        errors: ErrorPolicy = "raise",
    ) -> PullLabeledRaceObj[K, T_co | U] | PullLabeledRaceRobinObj[K, T_co | U]:
        """Merge as `merge` does, with each item as `(label, item)`; see `PullLabeledRaceObj`.

        This stream gets `label`: `prices.merge_labeled("prices", {"news": news})` is
        `PullLabeledRaceObj({"prices": prices, "news": news})`.
        With `fair=True` each source yields one item per round; see `PullLabeledRaceRobinObj`.

        Raises:
            TypeError: `others` is not a mapping; or as the class does.
            ValueError: `label` is one of `others` too; or as the class does.
        """
        from headrace.pull.labeled import (
            PullLabeledRaceObj,
            PullLabeledRaceRobinObj,
            prepend_labeled,
        )

        sources = prepend_labeled(label, self, others)
        if fair:
            return PullLabeledRaceRobinObj(sources, prefetch=prefetch, errors=errors)
        return PullLabeledRaceObj(sources, prefetch=prefetch, errors=errors)
