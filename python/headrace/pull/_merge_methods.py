"""The methods of a stream that combine it with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from headrace._core import PullLink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.pull._combination import OnError
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
        self, *others: Source[U], eager: int = 1, on_error: OnError = "raise"
    ) -> PullConcatObj[T_co | U]:
        """The items of this, then all of each of the others; see `PullConcatObj`."""
        from headrace.pull.merge import PullConcatObj

        return PullConcatObj(self, *others, eager=eager, on_error=on_error)

    @overload
    def zip(
        self,
        a: Source[A],
        /,
        *,
        strict: bool = ...,
        longest: Literal[False] = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[T_co, A]]: ...
    @overload
    def zip(
        self,
        a: Source[A],
        b: Source[B],
        /,
        *,
        strict: bool = ...,
        longest: Literal[False] = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[T_co, A, B]]: ...
    @overload
    def zip(
        self,
        a: Source[A],
        b: Source[B],
        c: Source[C],
        /,
        *,
        strict: bool = ...,
        longest: Literal[False] = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[T_co, A, B, C]]: ...
    @overload
    def zip(
        self,
        a: Source[A],
        b: Source[B],
        c: Source[C],
        d: Source[D],
        /,
        *,
        strict: bool = ...,
        longest: Literal[False] = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[T_co, A, B, C, D]]: ...
    @overload
    def zip(
        self,
        *others: Source[Any],
        strict: bool = ...,
        longest: bool = ...,
        fill: Any = ...,
        eager: int = ...,
        on_error: OnError = ...,
    ) -> PullZipObj[tuple[Any, ...]]: ...
    def zip(
        self,
        *others: Source[Any],
        strict: bool = False,
        longest: bool = False,
        fill: Any = None,
        eager: int = 1,
        on_error: OnError = "raise",
    ) -> PullZipObj[Any]:
        """One item of this and one of each of the others, as a tuple; see `PullZipObj`."""
        from headrace.pull.merge import PullZipObj

        return PullZipObj(
            self,
            *others,
            strict=strict,
            longest=longest,
            fill=fill,
            eager=eager,
            on_error=on_error,
        )

    def round_robin(
        self, *others: Source[U], eager: int = 1, on_error: OnError = "raise"
    ) -> PullRoundRobinObj[T_co | U]:
        """One item of this and of each of the others, in turn; see `PullRoundRobinObj`."""
        from headrace.pull.merge import PullRoundRobinObj

        return PullRoundRobinObj(self, *others, eager=eager, on_error=on_error)

    def race(
        self, *others: Source[U], eager: int = 1, on_error: OnError = "raise"
    ) -> PullRaceObj[T_co | U]:
        """The items of this and the others, as they come; see `PullRaceObj`."""
        from headrace.pull.merge import PullRaceObj

        return PullRaceObj(self, *others, eager=eager, on_error=on_error)

    def race_robin(
        self, *others: Source[U], eager: int = 1, on_error: OnError = "raise"
    ) -> PullRaceRobinObj[T_co | U]:
        """As `race`, but each source once a round; see `PullRaceRobinObj`."""
        from headrace.pull.merge import PullRaceRobinObj

        return PullRaceRobinObj(self, *others, eager=eager, on_error=on_error)

    def cutoff(
        self,
        *cutoffs: Source[Any],
        error: BaseException | None = None,
        eager: int = 1,
        on_error: OnError = "raise",
    ) -> PullRaceCutoffObj[T_co]:
        """The items until one of `cutoffs` gives one; see `PullRaceCutoffObj`."""
        from headrace.pull.merge import PullRaceCutoffObj

        return PullRaceCutoffObj(self, *cutoffs, error=error, eager=eager, on_error=on_error)

    def zip_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        strict: bool = False,
        longest: bool = False,
        fill: Any = None,
        eager: int = 1,
        on_error: OnError = "raise",
    ) -> PullLabeledZipObj[K, T_co | U]:
        """As `zip`, each item as `(label, item)`; see `PullLabeledZipObj`.

        `prices.zip_labeled("prices", {"news": news})` is `PullLabeledZipObj({"prices": prices, "news": news})`.

        Args:
            label: This stream's.
            others: The other sources by their labels.
            strict: Whether it is an error if they are not all of one length.
            longest: Whether it goes on until all have ended.
            fill: Stands for what a source has no more of, with `longest`.
            eager: How many items of each source may wait to be taken.
            on_error: What an error of a source does.

        Raises:
            TypeError: `others` is no mapping; or as the class does.
            ValueError: `label` is one of `others` too; or as the class does.
        """
        from headrace.pull.labeled import PullLabeledZipObj, beside

        return PullLabeledZipObj(
            beside(label, self, others),
            strict=strict,
            longest=longest,
            fill=fill,
            eager=eager,
            on_error=on_error,
        )

    def round_robin_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        eager: int = 1,
        on_error: OnError = "raise",
    ) -> PullLabeledRoundRobinObj[K, T_co | U]:
        """As `round_robin`, each item as `(label, item)`; see `PullLabeledRoundRobinObj`.

        `prices.round_robin_labeled("prices", {"news": news})` is `PullLabeledRoundRobinObj({"prices": prices, "news": news})`.

        Args:
            label: This stream's.
            others: The other sources by their labels.
            eager: How many items of each source may wait to be taken.
            on_error: What an error of a source does.

        Raises:
            TypeError: `others` is no mapping; or as the class does.
            ValueError: `label` is one of `others` too; or as the class does.
        """
        from headrace.pull.labeled import PullLabeledRoundRobinObj, beside

        return PullLabeledRoundRobinObj(beside(label, self, others), eager=eager, on_error=on_error)

    def race_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        eager: int = 1,
        on_error: OnError = "raise",
    ) -> PullLabeledRaceObj[K, T_co | U]:
        """As `race`, each item as `(label, item)`; see `PullLabeledRaceObj`.

        `prices.race_labeled("prices", {"news": news})` is `PullLabeledRaceObj({"prices": prices, "news": news})`.

        Args:
            label: This stream's.
            others: The other sources by their labels.
            eager: How many items of each source may wait to be taken.
            on_error: What an error of a source does.

        Raises:
            TypeError: `others` is no mapping; or as the class does.
            ValueError: `label` is one of `others` too; or as the class does.
        """
        from headrace.pull.labeled import PullLabeledRaceObj, beside

        return PullLabeledRaceObj(beside(label, self, others), eager=eager, on_error=on_error)

    def race_robin_labeled(
        self,
        label: K,
        others: Mapping[K, Source[U]],
        *,
        eager: int = 1,
        on_error: OnError = "raise",
    ) -> PullLabeledRaceRobinObj[K, T_co | U]:
        """As `race_robin`, each item as `(label, item)`; see `PullLabeledRaceRobinObj`.

        `prices.race_robin_labeled("prices", {"news": news})` is `PullLabeledRaceRobinObj({"prices": prices, "news": news})`.

        Args:
            label: This stream's.
            others: The other sources by their labels.
            eager: How many items of each source may wait to be taken.
            on_error: What an error of a source does.

        Raises:
            TypeError: `others` is no mapping; or as the class does.
            ValueError: `label` is one of `others` too; or as the class does.
        """
        from headrace.pull.labeled import PullLabeledRaceRobinObj, beside

        return PullLabeledRaceRobinObj(beside(label, self, others), eager=eager, on_error=on_error)
