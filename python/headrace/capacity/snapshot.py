"""What a tree of capacities was doing at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias, TypeVar

from headrace.capacity.limits import raised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.capacity.limits import Limit

__all__ = ["CapacitySnapshot"]

Shown: TypeAlias = tuple[Any, Any, Any, Any, Any]
"""What the core says of a node: what it is, counts, times, flags, and the same of its children."""

V = TypeVar("V")


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise TypeError("a snapshot is of one moment and cannot be changed; dict(...) makes a copy")


class Sealed(dict[str, V]):
    """What is so of each resource, for good: a dictionary that can be hashed, copied and pickled, but not changed."""

    __slots__ = ()

    # In the place of methods of many types.
    __setitem__: ClassVar[Any] = _refuse
    __delitem__: ClassVar[Any] = _refuse
    __ior__: ClassVar[Any] = _refuse
    clear: ClassVar[Any] = _refuse
    pop: ClassVar[Any] = _refuse
    popitem: ClassVar[Any] = _refuse
    setdefault: ClassVar[Any] = _refuse
    update: ClassVar[Any] = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@dataclass(frozen=True, slots=True)
class CapacitySnapshot:
    """A capacity and those below it, all at the same moment.

    Iterating it gives this one and all below it, each before its children. It does not change, and can be hashed, copied, pickled and
    given to `dataclasses.asdict`.
    """

    name: str | None
    """What it is called."""
    limit: Mapping[str, Limit]
    """Its limit, by resource."""
    held: Mapping[str, float]
    """By resource, here and below: of slots what is held, of a rate what has not come back yet, of a budget what is spent or
    held."""
    reserved: Mapping[str, float]
    """By resource: what is kept free for waiters that were passed too often."""
    weight: float
    """Its share among its siblings, relative to theirs."""
    waiting: int
    """How many wait, here and below; those already granted do not."""
    leases: int
    """How many leases are held, here and below."""
    granted: int
    """How many leases were granted, here and below, since it was made."""
    bypassed: int
    """How often, here and below, a smaller cost went past one that waits and did not fit; at rates none does."""
    mean_hold: float | None
    """For how many seconds leases are held, here and below, as a moving average of which the newest is an eighth; `None` before
    one was measured. Where nobody waits, only one in sixteen is, after the first sixteen."""
    share_received: float | None
    """Which part it had, from 0 to 1, of all that its siblings and it had while somebody waited, counted as cost x time;
    `None` for a root, and where nobody had to wait yet. What only one of them uses does not count, nor does what that one
    holds from before the others came, for as long as its leases are held on average."""
    share_due: float | None
    """Which part is due to it by its weight, among those of its siblings that had or wait for anything; of one that had nothing
    yet, as if it came now. `None` for a root."""
    paused: bool
    """Whether it is paused, or one above it."""
    closed: bool
    """Whether it is closed, or one above it."""
    children: tuple[CapacitySnapshot, ...]
    """Those below, in the order in which they were made."""

    @classmethod
    def of(cls, shown: Shown) -> CapacitySnapshot:
        """A snapshot out of the core's tuples."""
        (name, resources, weight, waiting), counts, times, flags, children = shown
        leases, granted, bypassed = counts
        mean_hold, received, due = times
        paused, closed = flags
        return cls(
            name,
            Sealed({resource: raised(*limit) for resource, limit, _, _ in resources}),
            Sealed({resource: held for resource, _, held, _ in resources}),
            Sealed({resource: reserved for resource, _, _, reserved in resources}),
            weight,
            waiting,
            leases,
            granted,
            bypassed,
            mean_hold,
            received,
            due,
            paused,
            closed,
            tuple(cls.of(child) for child in children),
        )

    def __iter__(self) -> Iterator[CapacitySnapshot]:
        left: list[CapacitySnapshot] = [self]
        while left:
            one = left.pop()
            yield one
            left.extend(reversed(one.children))
