"""One to many: each item to all sinks, or to one of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from headrace._internal.reprs import describe_value
from headrace.push._fan import FanOut
from headrace.push.base import checked_selector, checked_sink, checked_sinks, different_sinks

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from headrace.abc import PushProtocol

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class PushForkObj(FanOut[T], stock=True):
    """Delivers each item to all sinks, side by side.

    Law: every sink gets every item; the push is done when all have accepted it.
    Order: each sink gets the items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held.
    Cost: O(number of sinks) an item.
    Cancel safety: a cancelled push has delivered its item to each sink whole or not at all; some may
    have it and others not. Those that have it are in the error's attribute `accepted_by`, a tuple.

    A slow sink holds up the producer, and with it the others. A bounded buffer decouples it:

        buffer = PushPullBufferObj(100)
        fork = PushForkObj([fast, buffer.sink])
        ...  # and in a task of its own:
        await buffer.source.drain_to(slow)

    A sink that fails does not keep the item from the others; the producer then gets its error, or a
    group of several, with `accepted_by`. A sink that says `done` gets no more; the fork is done when
    all are. `next_nowait` delivers to all or to none, as far as can be said without running anything:
    an async callable in one branch, or a callable that fills the buffer of another, shows too late, and
    the `WouldBlock` then has those that have the item in `accepted_by`.

    Args:
        sinks: The push objects, each once.
        concurrent: Whether sinks that have to wait do so side by side (default), or one after the
            other, each getting the item when those before it have it.
        forward_close: Whether ending the fork ends its sinks (default). Turn it off where sinks are
            shared.

    Raises:
        TypeError: `sinks` is not iterable, or one of them is no push object.
        ValueError: There are no sinks, or one of them stands there twice.
    """

    __slots__ = ("_sinks",)

    def __init__(
        self,
        sinks: Iterable[PushProtocol[T]],
        *,
        concurrent: bool = True,
        forward_close: bool = True,
    ) -> None:
        self._sinks = different_sinks(sinks)
        super().__init__(self._sinks, "all", concurrent=concurrent, forward_close=forward_close)

    @property
    def sinks(self) -> Sequence[PushProtocol[T]]:
        """What it pushes into."""
        return self._sinks


class PushDistributeObj(FanOut[T], stock=True):
    """Delivers each item to the sink that `selector` names.

    Law: each item goes to exactly one sink, number `selector(item)`.
    Order: each sink gets its items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held.
    Cost: O(1) and one call an item.
    Cancel safety: a cancelled push has delivered its item whole or not at all.

    What is for a sink that is done is dropped; the push says `done` when all are.

    Args:
        sinks: The push objects; one may stand there more than once.
        selector: Sync or async, called with each item; gives the number of its sink, from 0.
        forward_close: Whether ending this ends its sinks (default).

    Raises:
        TypeError: `sinks` is not iterable, one of them is no push object, or `selector` is not
            callable; at a push: the selector gave no integer.
        ValueError: There are no sinks.
        IndexError: At a push: the selector named no sink. The item is still the caller's.
    """

    __slots__ = ("_sinks",)

    def __init__(
        self,
        sinks: Iterable[PushProtocol[T]],
        selector: Callable[[T], int] | Callable[[T], Coroutine[Any, Any, int]],
        *,
        forward_close: bool = True,
    ) -> None:
        self._sinks = checked_sinks(sinks)
        super().__init__(self._sinks, checked_selector(selector), forward_close=forward_close)

    @property
    def sinks(self) -> Sequence[PushProtocol[T]]:
        """What it pushes into."""
        return self._sinks

    @property
    def selector(self) -> Callable[[T], Any]:
        """The callable, live: a new one holds from the next item."""
        return self._fan.selector

    @selector.setter
    def selector(self, selector: Callable[[T], Any]) -> None:
        self._fan.selector = selector


class PushRoundRobinObj(FanOut[T], stock=True):
    """Delivers each item to the next sink of a ring.

    Law: item number `i` goes to `sinks[i % len(sinks)]`. A sink that is done leaves the ring; the push
    says `done` when all are.
    Order: each sink gets its items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held.
    Cost: O(1) an item, and one look at each sink that is done.
    Cancel safety: a cancelled push has delivered its item whole or not at all; if not, the next push
    has its turn, unless another came between. A sink that fails has had its turn.

    Args:
        sinks: The push objects; one that stands there twice gets twice as much.
        forward_close: Whether ending this ends its sinks (default).

    Raises:
        TypeError: `sinks` is not iterable, or one of them is no push object.
        ValueError: There are no sinks.
    """

    __slots__ = ("_sinks",)

    def __init__(self, sinks: Iterable[PushProtocol[T]], *, forward_close: bool = True) -> None:
        self._sinks = checked_sinks(sinks)
        super().__init__(self._sinks, "ring", forward_close=forward_close)

    @property
    def sinks(self) -> Sequence[PushProtocol[T]]:
        """What it pushes into."""
        return self._sinks


class PushLabeledDistributeObj(FanOut[T], Generic[K, T], stock=True):
    """Delivers each item to the sink whose label `selector` gives.

    Law: each item goes to exactly one sink, `sinks[selector(item)]`, or to where `missing` says.
    Order: each sink gets its items in the order in which they are pushed, if pushes do not overlap.
    Bound: nothing is held.
    Cost: O(1) and one call an item.
    Cancel safety: a cancelled push has delivered its item whole or not at all.

    Args:
        sinks: The push objects by label; one may have several labels.
        selector: Sync or async, called with each item; gives its label.
        missing: What becomes of an item whose label is unknown: `"raise"` a `KeyError` (default),
            `"drop"` it, or push it into this sink.
        forward_close: Whether ending this ends its sinks (default), that of `missing` included.

    Raises:
        TypeError: `sinks` is no mapping, one of them or `missing` is no push object, or `selector` is
            not callable; at a push: the selector gave what cannot be a label.
        ValueError: There are no sinks, or `missing` is another word.
        KeyError: At a push: there is no sink of that label. The item is still the caller's.
    """

    __slots__ = ("_by_label", "_drops", "_labeled")

    def __init__(
        self,
        sinks: Mapping[K, PushProtocol[T]],
        selector: Callable[[T], K] | Callable[[T], Coroutine[Any, Any, K]],
        missing: Literal["raise", "drop"] | PushProtocol[T] = "raise",
        *,
        forward_close: bool = True,
    ) -> None:
        if not isinstance(cast("object", sinks), Mapping):
            raise TypeError(f"sinks must be a mapping of push objects, got {describe_value(sinks)}")
        self._labeled = dict(sinks)
        if not self._labeled:
            raise ValueError("sinks must hold at least one push object, got none")
        for label, sink in self._labeled.items():
            checked_sink(sink, f"sinks[{label!r}]")
        ways = list(self._labeled.values())
        if not isinstance(missing, str):
            ways.append(checked_sink(missing, "missing"))
        elif missing not in ("raise", "drop"):
            raise ValueError(f'missing must be "raise", "drop" or a push object, got {missing!r}')
        self._drops = missing == "drop"
        self._by_label = _ByLabel(
            {label: number for number, label in enumerate(self._labeled)},
            checked_selector(selector),
            missing,
        )
        super().__init__(ways, self._by_label, forward_close=forward_close)

    @property
    def sinks(self) -> Mapping[K, PushProtocol[T]]:
        """What it pushes into, by label."""
        return MappingProxyType(self._labeled)

    @property
    def selector(self) -> Callable[[T], Any]:
        """The callable, live: a new one holds from the next item."""
        return self._by_label.selector

    @selector.setter
    def selector(self, selector: Callable[[T], Any]) -> None:
        self._by_label.selector = checked_selector(selector)


class _ByLabel:
    """A selector of numbers that asks one of labels."""

    def __init__(
        self, numbers: dict[Any, int], selector: Callable[[Any], Any], missing: Any
    ) -> None:
        self._numbers = numbers
        self.selector = selector
        self._missing = missing

    def __call__(self, item: Any) -> Any:
        label = self.selector(item)
        if inspect.isawaitable(label):
            return self._later(label, item)
        return self._number(label, item)

    async def _later(self, label: Awaitable[Any], item: Any) -> int | None:
        return self._number(await label, item)

    def _number(self, label: Any, item: Any) -> int | None:
        try:
            number = self._numbers.get(label)
        except TypeError as error:
            raise TypeError(
                f"selector must give a label, which is hashable, got {label!r} ({type(label).__name__}) for {item!r}"
            ) from error
        if number is not None or self._missing == "drop":
            return number
        if self._missing == "raise":
            raise KeyError(
                f"selector gave {describe_value(label)} for {item!r}, and no sink has that label"
            )
        return len(self._numbers)
