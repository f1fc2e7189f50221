"""`PushChain`: a push pipeline written from its top. User code begins one with `PushChain.start()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, overload

from headrace._internal.copying import Uncopied
from headrace._internal.sentinels import NOTHING
from headrace._internal.validate import check_partial_with_timeout
from headrace.push.base import PushObj, checked_sink
from headrace.push.batching import PushBufferObj, PushWindowObj
from headrace.push.fanout import (
    PushDistributeObj,
    PushForkObj,
    PushLabeledDistributeObj,
    PushRoundRobinObj,
)
from headrace.push.flattening import PushFlatMapObj, PushFlattenObj
from headrace.push.limit import SinkCapacityObj
from headrace.push.signal import PushSignalObj
from headrace.push.sink import SinkNullObj
from headrace.push.slicing import PushTakeObj
from headrace.push.timing import PushWindowTimeoutObj
from headrace.push.transform import (
    PushCallbackObj,
    PushDedupeObj,
    PushFilterObj,
    PushMapObj,
    PushObj1To1Link,
    PushReduceObj,
    PushSerialObj,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        Callable,
        Coroutine,
        Hashable,
        Iterable,
        Iterator,
        Mapping,
    )

    from headrace.abc import PushProtocol
    from headrace.capacity.node import CapacitySource
    from headrace.signal import WaitObject

IN_contra = TypeVar("IN_contra", contravariant=True)
OUT_co = TypeVar("OUT_co", covariant=True)
T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K", bound="Hashable")

# The number of operators that a `repr` names.
_SHOWN = 5

# The number of operators in one block of a chain. With one operator per block, CPython would free a long chain by
# recursion; with a single block, each added operator would copy all others.
_BLOCK = 100

# The function that creates an operator over a sink, and the operator's name.
_Step: TypeAlias = "tuple[Callable[[Any], PushObj[Any]], str]"


class PushChain(Uncopied, Generic[IN_contra, OUT_co]):
    """A recipe for a push pipeline, written in the order in which items pass through it.

        line = PushChain.start().filter(is_good).map(parse).fork(archive, index)
        await line.next(item)

    A push object needs its sink at construction, so that a pipeline is built from its end. A chain records the
    operators and builds them once the sink is known: `into`, `fork`, `distribute` and `round_robin` return the push
    object at the top. A sink may be any push object, including one built from another chain.

    Law: `chain.map(f).into(sink)` is `chain.into(PushMapObj(sink, f))`.
    Order, Bound, Cancel safety: those of its operators.
    Cost: O(1) per added operator, O(number of operators) to build the pipeline.

    A chain is immutable: every method returns a new one. One chain can build any number of pipelines, which share only
    the callables.
    """

    _instead = "it never changes, so use it again as it is"

    _steps: tuple[_Step, ...] = ()
    """The operators of the last block, from the top."""
    _above: PushChain[Any, Any] | None = None
    """The chain above that block."""
    _count: int = 0
    """The number of operators."""
    _first: tuple[str, ...] = ()
    """The names of the first operators, for `repr`."""

    @staticmethod
    @overload
    def start() -> _Start: ...
    @staticmethod
    @overload
    def start(item_type: type[T]) -> PushChain[T, T]: ...
    @staticmethod
    def start(item_type: Any = None) -> Any:  # noqa: ARG004 - it is there for type checkers
        """Return the empty chain.

        Args:
            item_type: The type of the pushed items, for type checkers only; without it, they infer it from the first
                operator.
        """
        return PushChain[Any, Any]()

    def _then(self, make: Callable[[PushProtocol[Any]], PushObj[Any]]) -> PushChain[IN_contra, Any]:
        # Build it once as a check, so that invalid arguments fail here.
        name = type(make(SinkNullObj())).__name__
        chain: PushChain[IN_contra, Any] = PushChain()
        chain._count = self._count + 1
        chain._first = self._first if self._count >= _SHOWN else (*self._first, name)
        if len(self._steps) < _BLOCK:
            chain._steps, chain._above = (*self._steps, (make, name)), self._above
        else:
            chain._steps, chain._above = ((make, name),), self
        return chain

    def _upwards(self) -> Iterator[_Step]:
        """Iterate over the operators, the last one first."""
        chain: PushChain[Any, Any] | None = self
        while chain is not None:
            yield from reversed(chain._steps)
            chain = chain._above

    def _top(self, end: PushProtocol[Any]) -> PushObj[IN_contra]:
        top: Any = end if isinstance(end, PushObj) else PushObj1To1Link[Any, Any](end)
        for make, _ in self._upwards():
            top = make(top)
        return cast("PushObj[IN_contra]", top)

    @overload
    def map(
        self, transform: Callable[[OUT_co], Coroutine[Any, Any, U]]
    ) -> PushChain[IN_contra, U]: ...
    @overload
    def map(self, transform: Callable[[OUT_co], U]) -> PushChain[IN_contra, U]: ...
    def map(self, transform: Callable[[OUT_co], Any]) -> PushChain[IN_contra, Any]:
        """Push `transform(item)` for each item; see `PushMapObj`."""
        return self._then(lambda sink: PushMapObj(sink, transform))

    def filter(self, predicate: Callable[[OUT_co], Any]) -> PushChain[IN_contra, OUT_co]:
        """Keep the items for which `predicate(item)` is true; see `PushFilterObj`."""
        return self._then(lambda sink: PushFilterObj(sink, predicate))

    @overload
    def accumulate(
        self, reducer: Callable[[U, OUT_co], Coroutine[Any, Any, U]], initial: U = ...
    ) -> PushChain[IN_contra, U]: ...
    @overload
    def accumulate(
        self, reducer: Callable[[U, OUT_co], U], initial: U = ...
    ) -> PushChain[IN_contra, U]: ...
    def accumulate(
        self, reducer: Callable[[Any, OUT_co], Any], initial: Any = NOTHING
    ) -> PushChain[IN_contra, Any]:
        """Push the running result of `reducer(accumulator, item)`; see `PushReduceObj`."""
        return self._then(lambda sink: PushReduceObj(sink, reducer, initial))

    def dedupe(
        self,
        *,
        key: Callable[[OUT_co], Any] | None = None,
        maxsize: int | None = None,
        consecutive: bool = False,
    ) -> PushChain[IN_contra, OUT_co]:
        """Drop repeated items; see `PushDedupeObj`."""
        return self._then(
            lambda sink: PushDedupeObj(sink, key=key, maxsize=maxsize, consecutive=consecutive)
        )

    def take(self, size: int) -> PushChain[IN_contra, OUT_co]:
        """Push the first `size` items; see `PushTakeObj`."""
        return self._then(lambda sink: PushTakeObj(sink, size))

    def flatten(
        self: PushChain[IN_contra, Iterable[U] | AsyncIterable[U]],
    ) -> PushChain[IN_contra, U]:
        """Push the items of each item, an iterable; see `PushFlattenObj`."""
        return self._then(PushFlattenObj)

    def flat_map(
        self,
        transform: Callable[
            [OUT_co],
            Iterable[U] | AsyncIterable[U] | Coroutine[Any, Any, Iterable[U] | AsyncIterable[U]],
        ],
    ) -> PushChain[IN_contra, U]:
        """Push the items of the iterable `transform(item)`, for each item; see `PushFlatMapObj`."""
        return self._then(lambda sink: PushFlatMapObj(sink, transform))

    def batch(
        self,
        size: int,
        timeout: float | None = None,
        *,
        partial: Literal["keep", "drop"] = "keep",
    ) -> PushChain[IN_contra, list[OUT_co]]:
        """Group the items into lists of `size`; see `PushWindowObj`.

        With a `timeout` a list is also delivered when it is `timeout` seconds old; see `PushWindowTimeoutObj`.

        Raises:
            ValueError: `partial="drop"` is given together with a `timeout`; or as the class does.
        """
        if timeout is None:
            return self._then(lambda sink: PushWindowObj(sink, size, partial=partial))
        check_partial_with_timeout(timeout, partial)
        return self._then(lambda sink: PushWindowTimeoutObj(sink, size, timeout))

    def batch_until(
        self,
        condition: Callable[[list[OUT_co]], Any],
        *,
        partial: Literal["keep", "drop"] = "keep",
    ) -> PushChain[IN_contra, list[OUT_co]]:
        """Group the items into lists, each complete once `condition(list so far)` is true; see `PushBufferObj`."""
        return self._then(lambda sink: PushBufferObj(sink, condition, partial=partial))

    def tap(
        self,
        *,
        before: Callable[[OUT_co], Any] | None = None,
        after: Callable[[OUT_co], Any] | None = None,
    ) -> PushChain[IN_contra, OUT_co]:
        """Call a callback before or after each item is delivered; see `PushCallbackObj`."""
        return self._then(lambda sink: PushCallbackObj(sink, before=before, after=after))

    def signal(
        self, wait_obj: WaitObject[Any], *, when: Literal["after", "before"] = "after"
    ) -> PushChain[IN_contra, OUT_co]:
        """Resolve a signal with each item; see `PushSignalObj`."""
        return self._then(lambda sink: PushSignalObj(sink, wait_obj, when=when))

    def limit(
        self,
        capacity: CapacitySource,
        *,
        cost: float | Mapping[str, float] = 1,
        priority: int = 0,
    ) -> PushChain[IN_contra, OUT_co]:
        """Push each item under a lease of `capacity`; see `SinkCapacityObj`."""
        return self._then(
            lambda sink: SinkCapacityObj(sink, capacity, cost=cost, priority=priority)
        )

    def serial(self) -> PushChain[IN_contra, OUT_co]:
        """Serialise concurrent pushes; see `PushSerialObj`."""
        return self._then(PushSerialObj)

    def into(self, sink: PushProtocol[OUT_co]) -> PushObj[IN_contra]:
        """Build the pipeline that ends in `sink`, and return the push object at its top.

        Raises:
            TypeError: `sink` is not a push object.
        """
        return self._top(checked_sink(sink))

    def fork(
        self, *sinks: PushProtocol[OUT_co], concurrent: bool = True, forward_close: bool = True
    ) -> PushObj[IN_contra]:
        """Build the pipeline that ends in all of `sinks`; see `PushForkObj`."""
        return self._top(PushForkObj(sinks, concurrent=concurrent, forward_close=forward_close))

    def distribute(
        self,
        selector: Callable[[OUT_co], int] | Callable[[OUT_co], Coroutine[Any, Any, int]],
        *sinks: PushProtocol[OUT_co],
        forward_close: bool = True,
    ) -> PushObj[IN_contra]:
        """Build the pipeline that ends in the sink whose number `selector` returns; see `PushDistributeObj`."""
        return self._top(PushDistributeObj(sinks, selector, forward_close=forward_close))

    def distribute_labeled(
        self,
        selector: Callable[[OUT_co], K] | Callable[[OUT_co], Coroutine[Any, Any, K]],
        sinks: Mapping[K, PushProtocol[OUT_co]],
        missing: Literal["raise", "drop"] | PushProtocol[OUT_co] = "raise",
        *,
        forward_close: bool = True,
    ) -> PushObj[IN_contra]:
        """Build the pipeline that ends in the sink whose label `selector` returns; see `PushLabeledDistributeObj`."""
        return self._top(
            PushLabeledDistributeObj(sinks, selector, missing, forward_close=forward_close)
        )

    def round_robin(
        self, *sinks: PushProtocol[OUT_co], forward_close: bool = True
    ) -> PushObj[IN_contra]:
        """Build the pipeline that ends in sinks used in rotation; see `PushRoundRobinObj`."""
        return self._top(PushRoundRobinObj(sinks, forward_close=forward_close))

    def describe(self, *, format: Literal["text", "mermaid"] = "text") -> str:  # noqa: A002 - what it is
        """List the operator classes of this recipe, as text with one line each, or as a Mermaid flowchart.

        The built pipeline is described by the push object that `into` returned.

        Order: that in which items pass through them.
        Bound: the text.
        Cost: O(number of operators).

        Args:
            format: `"text"` or `"mermaid"`.

        Raises:
            ValueError: `format` is neither of the two.
        """
        from headrace.describe import recipe

        return recipe(self._names(), format)

    def __repr__(self) -> str:
        first = self._first
        names = first if self._count <= _SHOWN else (*first[: _SHOWN - 1], "...")
        return f"<PushChain of {self._count}: {' | '.join(names) or 'nothing yet'}>"

    def _names(self) -> list[str]:
        """Return the names of the operator classes, from the top."""
        return [name for _, name in self._upwards()][::-1]


if TYPE_CHECKING:

    class _Start(PushChain[Any, Any]):
        """The empty chain: its item type is that of the first operator added."""

        @overload
        def map(self, transform: Callable[[T], Coroutine[Any, Any, U]]) -> PushChain[T, U]: ...
        @overload
        def map(self, transform: Callable[[T], U]) -> PushChain[T, U]: ...
        def map(self, transform: Callable[[T], Any]) -> PushChain[T, Any]: ...
        def filter(self, predicate: Callable[[T], Any]) -> PushChain[T, T]: ...
        def batch_until(
            self, condition: Callable[[list[T]], Any], *, partial: Literal["keep", "drop"] = "keep"
        ) -> PushChain[T, list[T]]: ...
        @overload
        def accumulate(
            self, reducer: Callable[[U, T], Coroutine[Any, Any, U]], initial: U = ...
        ) -> PushChain[T, U]: ...
        @overload
        def accumulate(self, reducer: Callable[[U, T], U], initial: U = ...) -> PushChain[T, U]: ...
        def accumulate(
            self, reducer: Callable[[Any, T], Any], initial: Any = ...
        ) -> PushChain[T, Any]: ...
        def flat_map(
            self,
            transform: Callable[
                [T],
                Iterable[U]
                | AsyncIterable[U]
                | Coroutine[Any, Any, Iterable[U] | AsyncIterable[U]],
            ],
        ) -> PushChain[T, U]: ...
        def into(self, sink: PushProtocol[T]) -> PushObj[T]: ...
        def fork(
            self, *sinks: PushProtocol[T], concurrent: bool = True, forward_close: bool = True
        ) -> PushObj[T]: ...
        def distribute(
            self,
            selector: Callable[[T], int] | Callable[[T], Coroutine[Any, Any, int]],
            *sinks: PushProtocol[T],
            forward_close: bool = True,
        ) -> PushObj[T]: ...
        def round_robin(
            self, *sinks: PushProtocol[T], forward_close: bool = True
        ) -> PushObj[T]: ...
