"""Operators that know the time: the loop's, always, so that they run on a virtual clock too.

Two of them cannot wait for their source and for the clock at once without a task that pulls the source; it is a
`Pump`. The others only sleep, and need none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from headrace._core import FilterKernel, ForeignFeed
from headrace._internal.reprs import format_count
from headrace._internal.validate import check_int, check_positive, check_seconds
from headrace.pull._background import Failure, PullPumpObj, Pump
from headrace.pull.source import SourceObj, as_pull
from headrace.pull.transform import PullObj1To1Link

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Self

    from headrace.pull.base import PullObj
    from headrace.pull.source import Source

T = TypeVar("T")


class PullTimeoutObj(PullPumpObj[T, T], stock=True):
    """The items of the source, each within `timeout` seconds.

    Law: with `on_timeout="raise"`, the items of the source, each once, and a `TimeoutError` for every pull that got
    none within `timeout` seconds of its beginning; what the source was asked for goes to a later pull. With `"skip"`,
    the items that came within `timeout` seconds of being asked for: one that came later is dropped when it comes, and
    the pull goes on to the next, so that no stale item is delivered and no `TimeoutError` raised; errors and the end
    are delivered, however late.
    Order: the source's.
    Bound: one item.
    Cost: O(1) per item and two turns of the loop; one asyncio task from the first pull to the end.
    Cancel safety: neither a cancelled pull nor a timeout reaches the source, and both lose nothing.

    The source is closed by the task that pulls it: at its end, by `aclose()`, or at the end of `async with`.

    Args:
        source: A pull object or an iterable, sync or async.
        timeout: Seconds, a positive finite number; or 0, for what the source has without waiting, unless `"skip"`.
        on_timeout: What becomes of a pull, or of an item, that takes longer: `"raise"` or `"skip"`.

    Raises:
        TypeError: `source` is not iterable, or `timeout` is not a number.
        ValueError: `timeout` is negative or not finite, or 0 with `"skip"`; or `on_timeout` is neither of the two.
        TimeoutError: At a pull: the source gave nothing in time.
    """

    def __init__(
        self,
        source: Source[T],
        timeout: float,
        *,
        on_timeout: Literal["raise", "skip"] = "raise",
    ) -> None:
        if on_timeout not in ("raise", "skip"):
            raise ValueError(f'on_timeout must be "raise" or "skip", got {on_timeout!r}')
        # Nothing comes in no time at all: with 0 every item would be dropped.
        self._checked = check_positive if on_timeout == "skip" else check_seconds
        self._timed: _Timed[T]
        if on_timeout == "skip":
            self._timed = _InTime(as_pull(source), self._checked("timeout", timeout))
        else:
            self._timed = _Patience(as_pull(source), self._checked("timeout", timeout))
        super().__init__(self._timed)

    @property
    def seconds(self) -> float:
        """The timeout, live: a new one applies from the next pull."""
        return self._timed.seconds

    @seconds.setter
    def seconds(self, timeout: float) -> None:
        self._timed.seconds = self._checked("seconds", timeout)


class _Timed(Pump[T, T]):
    def __init__(self, source: PullObj[T], timeout: float) -> None:
        super().__init__(source)
        self.seconds = timeout

    def facts(self) -> Iterator[str]:
        yield f"within {self.seconds} s"
        yield from super().facts()


class _Patience(_Timed[T]):
    """Waits so long, and leaves what comes later for the next pull."""

    async def __anext__(self) -> T:
        loop = asyncio.get_running_loop()
        timeout = self.seconds
        until = loop.time() + timeout
        while not (self.held or self.over):
            await self.wait(until)
            if not (self.held or self.over) and loop.time() >= until:
                raise TimeoutError(
                    f"the source gave no item within {timeout} seconds; what it gives goes to a later pull"
                )
        return self.take()


class _InTime(_Timed[T]):
    """Waits as long as it takes, and drops what took too long."""

    asked = 0.0
    """When the source was asked for what is held or comes next."""

    async def __anext__(self) -> T:
        while True:
            if not (self.held or self.pulling):
                self.asked = asyncio.get_running_loop().time()
            while not (self.held or self.over):
                await self.wait()
            is_item = self.held and type(self.held[0]) is not Failure
            if not (is_item and self.since - self.asked > self.seconds):
                return self.take()
            self.held.clear()


class PullWindowTimeoutObj(PullPumpObj[T, list[T]], stock=True):
    """Lists of at most `size` items, none of which waits for longer than `timeout` seconds.

    Law: the items of the source, each once, in lists that are never empty. A list leaves when it is full, or `timeout`
    seconds after its first item came, whichever is first; also at the end of the source, and before an error of it,
    which the next pull then raises. With a timeout of 0 it leaves with what the source has without waiting.
    Order: the source's.
    Bound: `size` items.
    Cost: O(1) per item, and a turn of the loop for those that come one by one; one asyncio task from the first pull to
    the end.
    Cancel safety: the items gathered by a cancelled pull are kept for the next pull, and their timeout continues.

    The source is asked only while a pull waits. It is closed by the task that pulls it: at its end, by `aclose()`, or
    at the end of `async with`.

    Args:
        source: A pull object or an iterable, sync or async.
        size: The number of items in a full list, a positive integer.
        timeout: Seconds, a finite number from 0.

    Raises:
        TypeError: `source` is not iterable, `size` no integer, or `timeout` is not a number.
        ValueError: `size` is not positive, or `timeout` negative or not finite.
    """

    def __init__(self, source: Source[T], size: int, timeout: float) -> None:
        self._window = _Window(
            as_pull(source), check_int("size", 1, size), check_seconds("timeout", timeout)
        )
        super().__init__(self._window)

    @property
    def size(self) -> int:
        """How many items make a list full, live: a new number applies from the next item."""
        return self._window.size

    @size.setter
    def size(self, size: int) -> None:
        self._window.size = check_int("size", 1, size)

    @property
    def seconds(self) -> float:
        """For how long a list waits, live: a new time applies from the next item."""
        return self._window.seconds

    @seconds.setter
    def seconds(self, timeout: float) -> None:
        self._window.seconds = check_seconds("seconds", timeout)


class _Window(Pump[T, list[T]]):
    def __init__(self, source: PullObj[T], size: int, timeout: float) -> None:
        super().__init__(source)
        self.size = size
        self.seconds = timeout

    def facts(self) -> Iterator[str]:
        yield format_count(len(self.held), self.size, "gathered")
        yield f"for {self.seconds} s"

    def room(self) -> int:
        return self.size if super().room() else 0

    async def __anext__(self) -> list[T]:
        loop = asyncio.get_running_loop()
        held = self.held
        while not (self.over or len(held) >= self.size or (held and type(held[-1]) is Failure)):
            until = self.since + self.seconds if held else None
            if until is not None and loop.time() >= until:
                break
            await self.wait(until)
        if not held or type(held[0]) is Failure:
            # Raises the error, or the end.
            return [self.take()]
        window: list[T] = []
        while held and len(window) < self.size and not isinstance(held[0], Failure):
            window.append(cast("T", held.popleft()))
        return window


class PullThrottleObj(PullObj1To1Link[T, T], stock=True):
    """At most `rate` items every `per` seconds.

    Law: the items of the source, each once, and in any stretch of `t` seconds at most `burst + rate / per * t` of them.
    So with a burst of 1 two items are never closer than `per / rate` seconds; and after a pause, `burst` items may go
    at once. Never early, by the loop's clock; each as soon as that allows.
    Order: the source's.
    Bound: one item, while it waits.
    Cost: O(1) per item, and a timer if it has to wait.
    Cancel safety: an item whose wait was cancelled waits again at the next pull. A wait that was cancelled counts for
    nothing.

    `restart()` does not forget the pace.

    Args:
        source: A pull object or an iterable, sync or async.
        rate: How many items, a positive finite number.
        per: In how many seconds, a positive finite number.
        burst: How many may go at once, a positive integer.

    Raises:
        TypeError: `source` is not iterable, `rate` or `per` no number, or `burst` is not an
            integer.
        ValueError: One of the numbers is not positive and finite.
    """

    def __init__(self, source: Source[T], rate: float, *, per: float = 1.0, burst: int = 1) -> None:
        self._pace = _Pace(
            check_positive("rate", rate), check_positive("per", per), check_int("burst", 1, burst)
        )
        # A filter that lets everything through, in its time: its driver keeps an item whose wait was cancelled, and an
        # item that is awaitable is none of its business.
        super().__init__(source, FilterKernel(self._pace))

    def _repr_parts(self) -> Iterator[str]:
        yield f"{self.rate} in {self.per} s"
        yield from super()._repr_parts()

    @property
    def rate(self) -> float:
        """How many items, live: a new number applies from the next item."""
        return self._pace.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._pace.rate = check_positive("rate", rate)

    @property
    def per(self) -> float:
        """In how many seconds, live: a new number applies from the next item."""
        return self._pace.per

    @per.setter
    def per(self, per: float) -> None:
        self._pace.per = check_positive("per", per)

    @property
    def burst(self) -> int:
        """How many may go at once, live: a new number applies from the next item."""
        return self._pace.burst

    @burst.setter
    def burst(self, burst: int) -> None:
        self._pace.burst = check_int("burst", 1, burst)


class _Pace:
    """When the next item may go: the generic cell rate algorithm.

    Each item that goes is a debt of one, which is paid off at the rate. An item may go when the debt, its own included,
    is at most `burst`. The theoretical arrival time of the algorithm is the moment when nothing will be owed; a debt in
    items says the same and follows a rate that changes.
    """

    def __init__(self, rate: float, per: float, burst: int) -> None:
        self.rate = rate
        self.per = per
        self.burst = burst
        self._debt = 0.0
        # When that was so.
        self._last = 0.0

    def __call__(self, _item: object) -> bool | Coroutine[None, None, bool]:
        now = asyncio.get_running_loop().time()
        if now < self._last:
            # Another loop, with a clock of its own.
            self._debt, self._last = 0.0, now
        return self._go(now) if now >= self._due() else self._go_when_due()

    async def _go_when_due(self) -> bool:
        await _reach(self._due())
        return self._go(asyncio.get_running_loop().time())

    def _due(self) -> float:
        return self._last + (self._debt + 1 - self.burst) * self.per / self.rate

    def _go(self, now: float) -> bool:
        paid = (now - self._last) * self.rate / self.per
        self._debt = max(0.0, self._debt - paid) + 1
        self._last = now
        return True


class PullTimerObj(SourceObj[int], stock=True):
    """0, 1, 2 and so on, one every `interval` seconds.

    Law: tick `k` comes `(k + 1) * interval` seconds after the first pull began, by the loop's clock and never early.
    The schedule does not drift: whoever comes late gets what is overdue at once, one tick a pull, and the next ones in
    time.
    Order: that of the numbers.
    Bound: nothing is held; what is overdue is a number.
    Cost: O(1) a tick, and a timer if it has to be waited for.
    Cancel safety: the tick of a cancelled pull comes with the next, and the schedule stays.

    `restart()` begins a new schedule, with the pull after it.

    Args:
        interval: Seconds, a positive finite number.
        count: After how many ticks it ends, a whole number from 0; `None` for never.

    Raises:
        TypeError: `interval` is not a number, or `count` is not an integer.
        ValueError: `interval` is not positive and finite, or `count` negative.
    """

    def __init__(self, interval: float, *, count: int | None = None) -> None:
        if count is not None:
            count = check_int("count", 0, count)
        self._said = (
            f"every {interval} s" if count is None else f"every {interval} s, {count} times"
        )
        super().__init__(ForeignFeed(_Timer(check_positive("interval", interval), count)))

    def _repr_parts(self) -> Iterator[str]:
        yield self._said
        yield from super()._repr_parts()


class _Timer:
    def __init__(self, interval: float, count: int | None) -> None:
        self._interval = interval
        self._count = count

    def __aiter__(self) -> _Ticks:
        return _Ticks(self._interval, self._count)


class _Ticks:
    """One schedule."""

    def __init__(self, interval: float, count: int | None) -> None:
        self._interval = interval
        self._count = count
        self._began: float | None = None
        self._next = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        tick = self._next
        if tick == self._count:
            raise StopAsyncIteration
        if self._began is None:
            self._began = asyncio.get_running_loop().time()
        await _reach(self._began + (tick + 1) * self._interval)
        self._next = tick + 1
        return tick


async def _reach(time: float) -> None:
    """Sleeps up to a time on the loop's clock; not at all if it has come."""
    loop = asyncio.get_running_loop()
    while True:
        left = time - loop.time()
        if left <= 0:
            return
        # A timer may be a little early: then the rest is slept too.
        await asyncio.sleep(left)
