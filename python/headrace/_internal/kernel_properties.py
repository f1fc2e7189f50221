"""What an operator is set to, live: the same for its pull and its push form, as their kernel is.

Each class here goes beside a link in the bases of the operator's two classes, which make the kernel. Its `_facts` are what
`repr` says of the setting, and of what the kernel holds: the link's own ask for them by `super()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from headrace._core import DedupeKernel
from headrace._internal.reprs import amount, called, calls, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from headrace._core import (
        BufferKernel,
        CallbackKernel,
        CatchKernel,
        FilterKernel,
        FlatMapKernel,
        InOrderKernel,
        MapKernel,
        ReduceKernel,
        SkipKernel,
        TakeKernel,
        WhileKernel,
        WindowKernel,
    )

__all__ = [
    "Buffering",
    "Calling",
    "Catching",
    "Filtering",
    "Mapping",
    "Ordering",
    "Reducing",
    "Remembering",
    "Sizing",
    "function_or_none",
    "remembering",
]

F = TypeVar("F", bound="Callable[..., Any]")
IN = TypeVar("IN")


def function_or_none(parameter: str, value: F | None) -> F | None:
    """Something that can be called, or None.

    Raises:
        TypeError: It is neither.
    """
    if value is not None and not callable(cast("object", value)):
        raise TypeError(f"{parameter} must be callable or None, got {shown(value)}")
    return value


class Mapping(Generic[IN]):
    """Of `map` and `flat_map`."""

    __slots__ = ()

    _kernel: MapKernel | FlatMapKernel

    def _facts(self) -> Iterator[str]:
        yield f"calls {called(self.transform)}"

    @property
    def transform(self) -> Callable[[IN], Any]:
        """The callable, live: a new one holds from the next item."""
        return self._kernel.transform

    @transform.setter
    def transform(self, transform: Callable[[IN], Any]) -> None:
        self._kernel.transform = transform


class Filtering(Generic[IN]):
    """Of `filter`, `take_while` and `skip_while`."""

    __slots__ = ()

    _kernel: FilterKernel | WhileKernel

    def _facts(self) -> Iterator[str]:
        yield f"calls {called(self.predicate)}"

    @property
    def predicate(self) -> Callable[[IN], Any]:
        """The callable, live: a new one holds from the next item."""
        return self._kernel.predicate

    @predicate.setter
    def predicate(self, predicate: Callable[[IN], Any]) -> None:
        self._kernel.predicate = predicate


class Reducing(Generic[IN]):
    """Of `accumulate`."""

    __slots__ = ()

    _kernel: ReduceKernel

    def _facts(self) -> Iterator[str]:
        yield f"calls {called(self.reducer)}"

    @property
    def reducer(self) -> Callable[[Any, IN], Any]:
        """The callable, live: a new one holds from the next item."""
        return self._kernel.reducer

    @reducer.setter
    def reducer(self, reducer: Callable[[Any, IN], Any]) -> None:
        self._kernel.reducer = reducer

    @property
    def accumulator(self) -> Any:
        """The result so far, live: set it to go on from there. `None` before there is one."""
        return self._kernel.accumulator

    @accumulator.setter
    def accumulator(self, value: Any) -> None:
        self._kernel.accumulator = value


class Sizing:
    """Of `batch`, `take` and `skip`."""

    __slots__ = ()

    _kernel: WindowKernel | TakeKernel | SkipKernel

    def _facts(self) -> Iterator[str]:
        waiting: int | None = getattr(self._kernel, "waiting", None)
        yield f"size {self.size}" if waiting is None else amount(waiting, self.size, "gathered")

    @property
    def size(self) -> int:
        """How many items, live: a new number holds from the next item."""
        return self._kernel.size

    @size.setter
    def size(self, size: int) -> None:
        self._kernel.size = size


class Buffering(Generic[IN]):
    """Of `batch_until`."""

    __slots__ = ()

    _kernel: BufferKernel

    def _facts(self) -> Iterator[str]:
        yield f"calls {called(self.condition)}"
        yield f"{self._kernel.waiting} gathered"

    @property
    def condition(self) -> Callable[[list[IN]], Any]:
        """The callable, live: a new one holds from the next item."""
        return self._kernel.condition

    @condition.setter
    def condition(self, condition: Callable[[list[IN]], Any]) -> None:
        self._kernel.condition = condition


class Calling(Generic[IN]):
    """Of `tap`."""

    __slots__ = ()

    _kernel: CallbackKernel

    def _facts(self) -> Iterator[str]:
        yield calls(self.callbacks)

    @property
    def callbacks(self) -> tuple[Callable[[IN], Any], ...]:
        """The callables, live: new ones hold from the next item. Set any iterable of them."""
        return self._kernel.callbacks

    @callbacks.setter
    def callbacks(self, callbacks: Iterable[Callable[[IN], Any]]) -> None:
        self._kernel.callbacks = callbacks


class Ordering(Generic[IN]):
    """Of `in_order`."""

    __slots__ = ()

    _kernel: InOrderKernel

    def _facts(self) -> Iterator[str]:
        yield f"calls {called(self.index)}"
        yield amount(self._kernel.waiting, self.maxsize, "held")

    @property
    def index(self) -> Callable[[IN], Any]:
        """The callable, live: a new one holds from the next item."""
        return self._kernel.index

    @index.setter
    def index(self, index: Callable[[IN], Any]) -> None:
        self._kernel.index = index

    @property
    def maxsize(self) -> int:
        """How many items are held at most, live. Those above a lower number stay, until they leave."""
        return self._kernel.maxsize

    @maxsize.setter
    def maxsize(self, maxsize: int) -> None:
        self._kernel.maxsize = maxsize


class Catching:
    """Of `catch`."""

    __slots__ = ()

    _kernel: CatchKernel

    def _facts(self) -> Iterator[str]:
        yield f"calls {called(self.handler)}"

    @property
    def handler(self) -> Callable[[Exception], Any]:
        """The callable, live: a new one holds from the next error."""
        return self._kernel.handler

    @handler.setter
    def handler(self, handler: Callable[[Exception], Any]) -> None:
        self._kernel.handler = handler


def remembering(
    key: Callable[[Any], Any] | None, maxsize: int | None, *, consecutive: bool
) -> DedupeKernel:
    """The kernel of `dedupe`.

    Raises:
        TypeError: `key` is not callable, or `maxsize` no integer.
        ValueError: `maxsize` is not positive, or given together with `consecutive`.
    """
    if consecutive and maxsize is not None:
        raise ValueError(
            f"maxsize has no meaning with consecutive=True, got {maxsize!r}; leave one of them out"
        )
    return DedupeKernel(key, maxsize, consecutive)


class Remembering:
    """Of `dedupe`."""

    __slots__ = ()

    _kernel: DedupeKernel

    def _facts(self) -> Iterator[str]:
        yield f"{self._kernel.remembered} remembered"
