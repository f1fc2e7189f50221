"""The types of the tables that `test_sweep.py` tests: kinds of sources, and operators in one configuration."""

from __future__ import annotations

from collections import Counter
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from headrace import PullObj, SourceIterObj
from tests.support import yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class SourceKind:
    """A kind of source."""

    name: str
    make: Callable[[list[Any]], Any]
    """Create a source of these items."""
    _: KW_ONLY
    covers: tuple[type, ...] = ()
    excused_by: type[Exception] | None = None
    """The error that a pull raises after a cancelled one, if the source may lose items."""
    restarts: bool = True
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = ()
    drops: bool = True
    """Whether a pending awaitable may be closed: its clean-up does not wait."""
    timed: bool = False
    """Whether it runs on the virtual clock only."""
    is_twin: bool = False
    """Whether it waits as another source does: sweeps try it with sync callables only."""

    def open(self, items: Iterable[Any]) -> PullObj[Any]:
        """Return a stream of these items."""
        source = self.make(list(items))
        return source if isinstance(source, PullObj) else SourceIterObj(source)


@dataclass(frozen=True)
class Row:
    """An operator in one configuration."""

    name: str
    build: Callable[[Any, Wrap], PullObj[Any]]
    """Build the operator over a source; the second argument wraps each of its callables."""
    model: Callable[[list[Any]], list[Any]]
    """The same in plain Python."""
    _: KW_ONLY
    covers: tuple[type, ...]
    identity: Callable[[PullObj[Any]], PullObj[Any]] | None = None
    """Add the operator to a stream, configured so that it changes nothing."""
    depth: int = 10_000
    """How many identities are stacked in the test of depth."""
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = ()
    """Invalid constructions, each with the type and the text of its error."""
    items: tuple[Any, ...] = (0, 1, 2, 3, 4, 5)
    is_simple: bool = True
    """Whether it has at most one callable, whose last argument is an item of the source."""
    ready: Iterable[Any] | None = None
    """Many ready items, if not `items` repeated."""
    calls: Literal["none", "exact", "at least once"] = "at least once"
    """How often an async callable is called for an item whose pull is cancelled."""
    ordered: bool = True
    restarts: Literal["always", "at rest", "never"] = "always"
    """When it can restart: an operator with running tasks cannot."""
    owns_tasks: bool = False
    """Whether it emits a `ResourceWarning` if it is dropped."""
    timed: bool = False
    """Whether it runs on the virtual clock only."""
    errors_count: bool = False
    """Whether an error of a source counts as an item in the model."""
    sources: tuple[str, ...] | None = None
    """The names of the sources to test it with, if a few represent all."""
    has_own_anext: bool = False
    """Whether its class has a user-defined `__anext__`, which cannot take back the items of a cancelled terminal."""

    def is_same(self, received: list[Any], expected: list[Any]) -> bool:
        """Return whether the items are the promised ones, in the promised order if it has one."""
        if self.ordered:
            return received == expected
        return sorted(received, key=repr) == sorted(expected, key=repr)

    def expected(self) -> list[Any]:
        return self.model(list(self.items))

    def kinds(self) -> list[CallCounter]:
        """Return the wrappers to test its callables with: sync and, if it has callables, async."""
        return (
            [CallCounter(False)]
            if self.calls == "none"
            else [CallCounter(False), CallCounter(True)]
        )


@dataclass
class CallCounter:
    """Wraps callables as sync or async ones, and counts their calls per run."""

    is_async: bool
    runs: list[Counter[Any]] = field(default_factory=list)
    _count: int = 0

    def begin(self) -> None:
        self._count = 0
        self.runs.append(Counter())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self._count += 1
        name, calls = self._count, self.runs[-1]

        def sync(*arguments: Any) -> Any:
            calls[name, *arguments] += 1
            return function(*arguments)

        async def slow(*arguments: Any) -> Any:
            result = sync(*arguments)
            await yield_to_loop(1 + arguments[-1] % 2)
            return result

        return slow if self.is_async else sync


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
