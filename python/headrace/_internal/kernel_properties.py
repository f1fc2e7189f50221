"""Live configuration of operators: attributes that are forwarded to an operator's kernel.

The pull and the push form of an operator share its kernel, and so its configuration. Each class here is a base of both classes,
beside the link. Its `_repr_parts` describe the configuration and what the kernel holds; the link's own call them by `super()`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from headrace._core import DedupeKernel
from headrace._internal.reprs import callable_name, callable_names, format_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

GET = TypeVar("GET")
SET = TypeVar("SET")
IN = TypeVar("IN")


class KernelProperty(Generic[GET, SET]):
    """A live attribute: reads and writes the attribute of the same name of the instance's kernel.

    Args:
        doc: The docstring.
        of: The attribute of the instance that holds the kernel, or another object with the configuration.
        check: Checks the name and a new value, and returns the value; without it, the kernel checks the value.
    """

    def __init__(
        self, doc: str, *, of: str = "_kernel", check: Callable[[str, Any], Any] | None = None
    ) -> None:
        self.__doc__ = doc
        self._of = of
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> GET: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        """Read the attribute of the kernel; on the class, return this descriptor."""
        return self if instance is None else getattr(getattr(instance, self._of), self._name)

    def __set__(self, instance: Any, value: SET) -> None:
        """Check the value, and write the attribute of the kernel."""
        checked = value if self._check is None else self._check(self._name, value)
        setattr(getattr(instance, self._of), self._name, checked)


class HasTransform(Generic[IN]):
    """Configuration of `map` and `flat_map`."""

    __slots__ = ()

    transform: KernelProperty[Callable[[IN], Any], Callable[[IN], Any]] = KernelProperty(
        "The callable, live: a new one applies from the next item."
    )

    def _repr_parts(self) -> Iterator[str]:
        yield f"calls {callable_name(self.transform)}"


class HasPredicate(Generic[IN]):
    """Configuration of `filter`, `take_while` and `skip_while`."""

    __slots__ = ()

    predicate: KernelProperty[Callable[[IN], Any], Callable[[IN], Any]] = KernelProperty(
        "The callable, live: a new one applies from the next item."
    )

    def _repr_parts(self) -> Iterator[str]:
        yield f"calls {callable_name(self.predicate)}"


class HasReducer(Generic[IN]):
    """Configuration of `accumulate`."""

    __slots__ = ()

    reducer: KernelProperty[Callable[[Any, IN], Any], Callable[[Any, IN], Any]] = KernelProperty(
        "The callable, live: a new one applies from the next item."
    )
    accumulator: KernelProperty[Any, Any] = KernelProperty(
        "The current result, live: set it to continue from there. `None` before the first item."
    )

    def _repr_parts(self) -> Iterator[str]:
        yield f"calls {callable_name(self.reducer)}"


class HasSize:
    """Configuration of `batch`, `take` and `skip`."""

    __slots__ = ()

    _kernel: Any

    size: KernelProperty[int, int] = KernelProperty(
        "The number of items, live: a new number applies from the next item."
    )

    def _repr_parts(self) -> Iterator[str]:
        gathered: int | None = getattr(self._kernel, "waiting", None)
        yield (
            f"size {self.size}"
            if gathered is None
            else format_count(gathered, self.size, "gathered")
        )


class HasCondition(Generic[IN]):
    """Configuration of `batch_until`."""

    __slots__ = ()

    _kernel: Any

    condition: KernelProperty[Callable[[list[IN]], Any], Callable[[list[IN]], Any]] = (
        KernelProperty("The callable, live: a new one applies from the next item.")
    )

    def _repr_parts(self) -> Iterator[str]:
        yield f"calls {callable_name(self.condition)}"
        yield f"{self._kernel.waiting} gathered"


class HasCallbacks(Generic[IN]):
    """Configuration of `tap`."""

    __slots__ = ()

    callbacks: KernelProperty[tuple[Callable[[IN], Any], ...], Iterable[Callable[[IN], Any]]] = (
        KernelProperty(
            "The callables, live: new ones apply from the next item. Set any iterable of them."
        )
    )

    def _repr_parts(self) -> Iterator[str]:
        yield f"calls {callable_names(self.callbacks)}"


class HasIndex(Generic[IN]):
    """Configuration of `in_order`."""

    __slots__ = ()

    _kernel: Any

    index: KernelProperty[Callable[[IN], Any], Callable[[IN], Any]] = KernelProperty(
        "The callable, live: a new one applies from the next item."
    )
    maxsize: KernelProperty[int, int] = KernelProperty(
        "The maximum number of held items, live. Under a lower number, excess items stay until they leave in order."
    )

    def _repr_parts(self) -> Iterator[str]:
        yield f"calls {callable_name(self.index)}"
        yield format_count(self._kernel.waiting, self.maxsize, "held")


class _Handler(KernelProperty["Callable[..., Any]", "Callable[..., Any]"]):
    """The handler of `catch`, whose signature says whether it gets the item too."""

    def __set__(self, instance: Any, value: Callable[..., Any]) -> None:
        instance._kernel.set_handler(value, takes_item(value))


class HasHandler:
    """Configuration of `catch`."""

    __slots__ = ()

    handler: _Handler = _Handler("The callable, live: a new one applies from the next error.")

    def _repr_parts(self) -> Iterator[str]:
        yield f"calls {callable_name(self.handler)}"


def takes_item(handler: Callable[..., Any]) -> bool:
    """Return whether the handler of a `catch` takes the error and its item, rather than the error alone.

    Raises:
        TypeError: The handler takes neither.
    """
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        # Not callable, which the kernel refuses, or a builtin that has no signature.
        return False
    for count in (1, 2):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count == 2
    parameters = ", ".join(signature.parameters)
    raise TypeError(
        f"handler must take the error, or the error and its item, got {callable_name(handler)}({parameters})"
    )


class HasMemory:
    """State of `dedupe`."""

    __slots__ = ()

    _kernel: DedupeKernel

    def _repr_parts(self) -> Iterator[str]:
        yield f"{self._kernel.remembered} remembered"


def dedupe_kernel(
    key: Callable[[Any], Any] | None, maxsize: int | None, *, consecutive: bool
) -> DedupeKernel:
    """Make the kernel of `dedupe`.

    Raises:
        TypeError: `key` is not callable, or `maxsize` is not an integer.
        ValueError: `maxsize` is not positive, or given together with `consecutive`.
    """
    if consecutive and maxsize is not None:
        raise ValueError(
            f"maxsize has no meaning with consecutive=True, got {maxsize!r}; leave one of them out"
        )
    return DedupeKernel(key, maxsize, consecutive)
