"""`Breaker`: stops the calls under a node while they fail, and tries again with a few. `BreakerState`: its state in a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from headrace._internal.reprs import describe_value
from headrace._internal.validate import check_size
from headrace.capacity.limits import LEAST, MOST, checked

if TYPE_CHECKING:
    from headrace.capacity.limits import Number

# The core counts calls in 32 bits.
_LARGEST = 10**6

State: TypeAlias = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """Stops the calls under a node while they fail: none is granted for a while, then a few probes decide.

        api = CapacitySource(40, breaker=Breaker())

    - *Closed*: all is granted as usual.
    - *Open*, after too many failures: nothing is granted at the node and below for `open_for` seconds. No waiter holds a lease. Waiters
      keep their places, and siblings of the node continue. Leases that are held stay valid.
    - *Half open*, after that: at most `probes` leases are granted. If as many calls succeed, the breaker closes, and the node is ramped
      up as after a cooldown. The first call that fails opens it again, for the same time. A probe that is cancelled, throttled
      or released without an outcome makes room for another one.

    A task pool reports the outcomes of its tasks by itself; elsewhere, call `lease.report()`. An outcome counts at each node of the path
    that has a breaker. Failures are errors that `classify` calls transient or fatal, and timeouts. Results and permanent errors, such
    as a 404 or a `TypeError`, are successes: the service answered, or was not called. Throttled answers and cancellations are neither.

    Law: nothing is granted while it is open. While it is half open, at most `probes` leases are held of those granted since it opened.
    Calls that began before it opened change nothing after that.
    Order: waiters are granted in their order, so the first waiters are the probes.
    Bound: ten counts. In an outage it opens after `failures` calls that end, or that share of about `5 * minimum` calls at most. Calls in
    flight then are not ended. After that, at most `probes` calls are made in each `open_for` seconds.
    Cost: a lock for each report in a tree with a breaker; nothing elsewhere.
    Cancel safety: a cancelled waiter changes nothing, and a cancelled probe frees its place.

    Nothing bounds the wait for a service that does not return, except `queue_timeout` of a task and `timeout` of `acquire`. Both run while
    the breaker is open, so that work fails fast. `explain()` and `snapshot()` show the state.

    Args:
        failures: A share of the latest calls, a float above 0 and at most 1; or, as an int from 1, a number of failures without a
            success between them. Note that 1.0 means all calls, and 1 the first failure.
        minimum: The least number of calls of which a share is taken. Of more than about five times as many, the latest count.
        window: The seconds after which calls no longer count for the share.
        open_for: The seconds for which it stays open.
        probes: The number of calls that must succeed to close it.

    Raises:
        TypeError: A parameter is of the wrong type.
        ValueError: A parameter is out of range.
    """

    failures: float = 0.5
    minimum: int = 20
    window: float = 30.0
    open_for: float = 30.0
    probes: int = 1

    def __post_init__(self) -> None:
        failures = checked("failures", self.failures)
        if isinstance(failures, int) and not 1 <= failures <= _LARGEST:
            raise ValueError(
                f"failures must be a number of calls from 1 to 10**6, or a share as a float, got {describe_value(failures)}"
            )
        if isinstance(failures, float) and not 0 < failures <= 1:
            raise ValueError(
                f"failures must be a share above 0 and at most 1, or a number of calls as an int, got {failures!r}"
            )
        for name in ("minimum", "probes"):
            if check_size(name, getattr(self, name)) > _LARGEST:
                raise ValueError(
                    f"{name} must be at most 10**6, got {describe_value(getattr(self, name))}"
                )
        for name in ("window", "open_for"):
            seconds: Number = checked(name, getattr(self, name))
            if not LEAST <= seconds <= MOST:
                raise ValueError(
                    f"{name} must be from a microsecond to a year, got {describe_value(seconds)}"
                )


@dataclass(frozen=True, slots=True)
class BreakerState:
    """The state of the breaker of a node at one moment, as `CapacitySource.snapshot()` returns it."""

    state: State
    """`"closed"`, `"open"` or `"half_open"`."""
    since: float | None
    """The seconds since it opened last; `None` while it is closed."""
    left: float
    """The seconds until probes are granted; 0 unless it is open."""
    calls: int
    """The number of calls that it counts while it is closed; of failures in a row alone, if these open it."""
    failures: int
    """How many of them failed."""
    probes: int
    """The number of probes that may be granted now; 0 unless it is half open."""

    @classmethod
    def of(cls, status: Any) -> BreakerState | None:
        """Build it from the tuple of the core."""
        return None if status is None else cls(*status)

    def __str__(self) -> str:
        if self.state == "closed":
            return "breaker closed"
        if self.state == "open":
            return f"breaker open since {self.since:.3g} s, {self.left:.3g} s left"
        return f"breaker half open since {max(0.0, self.since or 0.0):.3g} s"


def checked_breaker(breaker: Breaker | None) -> Breaker | None:
    """Return a breaker or None.

    Raises:
        TypeError: It is neither.
    """
    if breaker is not None and not isinstance(cast("object", breaker), Breaker):
        raise TypeError(f"breaker must be a Breaker or None, got {describe_value(breaker)}")
    return breaker


def breaker_to_core(breaker: Breaker) -> tuple[int | None, float, int, float, float, int]:
    """Convert a breaker to the form of the core: failures in a row, share, minimum, window, `open_for` and probes."""
    failures = breaker.failures
    in_a_row = failures if isinstance(failures, int) else None
    return (in_a_row, failures, breaker.minimum, breaker.window, breaker.open_for, breaker.probes)
