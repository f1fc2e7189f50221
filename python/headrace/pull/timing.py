"""Operators that depend on time. They use the event loop's clock, and so also run on a virtual clock.

`PullObj.timeout()`, `throttle()` and `batch()` with a timeout create its operators.

Two of them wait for their source and the clock at the same time, which takes a task that pulls the source, a `BackgroundPuller`.
The others only sleep, and need no task.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from headrace._core import AsyncIterSource, FilterKernel
from headrace._internal.kernel_properties import KernelProperty
from headrace._internal.reprs import format_count
from headrace._internal.validate import check_int, check_positive, check_seconds, check_size
from headrace.pull._background import BackgroundPuller, Failure, PullBackgroundObj
from headrace.pull.source import SourceObj, as_pull
from headrace.pull.transform import PullObj1To1Link

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Self

    from headrace.pull.base import PullObj
    from headrace.pull.source import Source

T = TypeVar("T")


class PullTimeoutObj(PullBackgroundObj[T, T], stock=True):
    """The items of the source, with at most `timeout` seconds for each.

    Law: with `on_timeout="raise"`, the items of the source, each once, and a `TimeoutError` for every pull that got
    none within `timeout` seconds of its start; the requested item goes to a later pull. With `"skip"`, the items that
    arrived within `timeout` seconds of their request. A later item is dropped on arrival and the pull continues with
    the next, so that no stale item is yielded and no `TimeoutError` raised; errors and the end are delivered, however
    late.
    Order: the source's.
    Bound: one item.
    Cost: O(1) per item and two event-loop iterations; one asyncio task from the first pull to the end.
    Cancel safety: neither a cancelled pull nor a timeout reaches the source or loses an item.

    The source is closed by the task that pulls it: at its end, by `aclose()`, or at the end of `async with`.

    Args:
        source: A pull object or an iterable, sync or async.
        timeout: Seconds, a positive finite number; or 0, for an item that the source has without waiting (not with
            `"skip"`).
        on_timeout: The fate of a pull or item that takes longer: `"raise"` or `"skip"`.

    Raises:
        TypeError: `source` is not iterable, or `timeout` is not a number.
        ValueError: `timeout` is negative or not finite, or 0 with `"skip"`, or `on_timeout` is neither of the two.
        TimeoutError: At a pull: the source yielded no item in time.
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
        # No item arrives within 0 seconds: every item would be dropped.
        self._checked = check_positive if on_timeout == "skip" else check_seconds
        self._timed: _Timed[T]
        if on_timeout == "skip":
            self._timed = _DropLate(as_pull(source), self._checked("timeout", timeout))
        else:
            self._timed = _PullWithin(as_pull(source), self._checked("timeout", timeout))
        super().__init__(self._timed)

    @property
    def seconds(self) -> float:
        """The timeout, live: a new one applies from the next pull."""
        return self._timed.seconds

    @seconds.setter
    def seconds(self, timeout: float) -> None:
        self._timed.seconds = self._checked("seconds", timeout)


class _Timed(BackgroundPuller[T, T]):
    def __init__(self, source: PullObj[T], timeout: float) -> None:
        super().__init__(source)
        self.seconds = timeout

    def parts(self) -> Iterator[str]:
        yield f"within {self.seconds} s"
        yield from super().parts()


class _PullWithin(_Timed[T]):
    """Wait up to the timeout, and keep a later item for the next pull."""

    async def __anext__(self) -> T:
        loop = asyncio.get_running_loop()
        timeout = self.seconds
        until = loop.time() + timeout
        while not (self.buffer or self.is_over):
            await self.wait(until)
            if not (self.buffer or self.is_over) and loop.time() >= until:
                raise TimeoutError(
                    f"the source gave no item within {timeout} seconds; a late item goes to a later pull"
                )
        return self.take()


class _DropLate(_Timed[T]):
    """Wait without a limit, and drop the items that took too long."""

    requested_at = 0.0
    """The time of the pull for the held item, or else for the next one."""

    async def __anext__(self) -> T:
        while True:
            if not (self.buffer or self.is_pulling):
                self.requested_at = asyncio.get_running_loop().time()
            while not (self.buffer or self.is_over):
                await self.wait()
            is_item = self.buffer and type(self.buffer[0]) is not Failure
            if not (is_item and self.first_at - self.requested_at > self.seconds):
                return self.take()
            self.buffer.clear()


class PullWindowTimeoutObj(PullBackgroundObj[T, list[T]], stock=True):
    """Lists of at most `size` items that wait at most `timeout` seconds.

    Law: the items of the source, each once, in lists that are never empty. A list is yielded when it is full or
    `timeout` seconds after the arrival of its first item, whichever is first. It is also yielded at the end of the
    source, and before an error of the source, which the next pull raises. With a timeout of 0, a list holds the items
    that the source has without waiting.
    Order: the source's.
    Bound: `size` items.
    Cost: O(1) per item, and one event-loop iteration for items that arrive one by one; one asyncio task from the first
    pull to the end.
    Cancel safety: the items gathered by a cancelled pull are kept for the next pull, and their timeout continues.

    The source is pulled only while a pull waits. It is closed by the task that pulls it: at its end, by `aclose()`, or
    at the end of `async with`.

    Args:
        source: A pull object or an iterable, sync or async.
        size: The number of items in a full list, a positive integer.
        timeout: Seconds, a finite number of at least 0.

    Raises:
        TypeError: `source` is not iterable, `size` no integer, or `timeout` is not a number.
        ValueError: `size` is not positive, or `timeout` negative or not finite.
    """

    size: KernelProperty[int, int] = KernelProperty(
        "The number of items in a full list, live: a new number applies from the next item.",
        of="_puller",
        check=check_size,
    )
    seconds: KernelProperty[float, float] = KernelProperty(
        "The maximum age of a list in seconds, live: a new time applies from the next item.",
        of="_puller",
        check=check_seconds,
    )

    def __init__(self, source: Source[T], size: int, timeout: float) -> None:
        check_size("size", size)
        super().__init__(_Window(as_pull(source), size, check_seconds("timeout", timeout)))


class _Window(BackgroundPuller[T, list[T]]):
    def __init__(self, source: PullObj[T], size: int, timeout: float) -> None:
        super().__init__(source)
        self.size = size
        self.seconds = timeout

    def parts(self) -> Iterator[str]:
        yield format_count(len(self.buffer), self.size, "gathered")
        yield f"for {self.seconds} s"

    def max_buffered(self) -> int:
        return self.size if super().max_buffered() else 0

    async def __anext__(self) -> list[T]:
        loop = asyncio.get_running_loop()
        buffer = self.buffer
        while not (
            self.is_over or len(buffer) >= self.size or (buffer and type(buffer[-1]) is Failure)
        ):
            until = self.first_at + self.seconds if buffer else None
            if until is not None and loop.time() >= until:
                break
            await self.wait(until)
        if not buffer or type(buffer[0]) is Failure:
            # Raises the error, or the end.
            return [self.take()]
        window: list[T] = []
        while buffer and len(window) < self.size and not isinstance(buffer[0], Failure):
            window.append(cast("T", buffer.popleft()))
        return window


class PullThrottleObj(PullObj1To1Link[T, T], stock=True):
    """At most `rate` items every `per` seconds.

    Law: the items of the source, each once, and in any stretch of `t` seconds at most `burst + rate / per * t` of them.
    So with a burst of 1, two items are at least `per / rate` seconds apart; after a pause, `burst` items may pass at
    once. Each item passes as soon as this allows, never early by the loop's clock.
    Order: the source's.
    Bound: one item, while it waits.
    Cost: O(1) per item, and a timer if it has to wait.
    Cancel safety: an item whose wait was cancelled waits again at the next pull. A cancelled wait does not count
    against the rate.

    `restart()` does not reset the rate.

    Args:
        source: A pull object or an iterable, sync or async.
        rate: The number of items per period, a positive finite number.
        per: The length of the period in seconds, a positive finite number.
        burst: The maximum number of items that pass at once, a positive integer.

    Raises:
        TypeError: `source` is not iterable, `rate` or `per` is not a number, or `burst` is not an
            integer.
        ValueError: One of the numbers is not positive and finite.
    """

    rate: KernelProperty[float, float] = KernelProperty(
        "The number of items per period, live: a new number applies from the next item.",
        of="_pace",
        check=check_positive,
    )
    per: KernelProperty[float, float] = KernelProperty(
        "The length of the period in seconds, live: a new number applies from the next item.",
        of="_pace",
        check=check_positive,
    )
    burst: KernelProperty[int, int] = KernelProperty(
        "The maximum number of items that pass at once, live: a new number applies from the next item.",
        of="_pace",
        check=check_size,
    )

    def __init__(self, source: Source[T], rate: float, *, per: float = 1.0, burst: int = 1) -> None:
        self._pace = _Pace(
            check_positive("rate", rate), check_positive("per", per), check_size("burst", burst)
        )
        # A filter that accepts every item, in time: its driver keeps an item whose wait was cancelled, and does not
        # await awaitable items.
        super().__init__(source, FilterKernel(self._pace))

    def _repr_parts(self) -> Iterator[str]:
        yield f"{self.rate} in {self.per} s"
        yield from super()._repr_parts()


class _Pace:
    """Schedule the next item by the generic cell rate algorithm.

    Each item adds one to a debt that is paid off at the rate. An item may pass when the debt, including the item, is at
    most `burst`. The algorithm's theoretical arrival time is the moment when the debt is zero; a debt in items is
    equivalent and follows a changing rate.
    """

    def __init__(self, rate: float, per: float, burst: int) -> None:
        self.rate = rate
        self.per = per
        self.burst = burst
        self._debt = 0.0
        # The time at which `_debt` was updated.
        self._last = 0.0

    def __call__(self, _item: object) -> bool | Coroutine[None, None, bool]:
        now = asyncio.get_running_loop().time()
        if now < self._last:
            # A different loop, with its own clock.
            self._debt, self._last = 0.0, now
        return self._admit(now) if now >= self._due_time() else self._admit_when_due()

    async def _admit_when_due(self) -> bool:
        await _sleep_until(self._due_time())
        return self._admit(asyncio.get_running_loop().time())

    def _due_time(self) -> float:
        return self._last + (self._debt + 1 - self.burst) * self.per / self.rate

    def _admit(self, now: float) -> bool:
        paid = (now - self._last) * self.rate / self.per
        self._debt = max(0.0, self._debt - paid) + 1
        self._last = now
        return True


class PullTimerObj(SourceObj[int], stock=True):
    """0, 1, 2 and so on, one every `interval` seconds.

    Law: tick `k` is due `(k + 1) * interval` seconds after the start of the first pull, by the loop's clock and never
    early. The schedule does not drift: a late consumer gets the overdue ticks at once, one per pull, and the next ones
    on time.
    Order: that of the numbers.
    Bound: nothing is held; the overdue ticks are a count.
    Cost: O(1) per tick, and a timer if the tick is not due yet.
    Cancel safety: the next pull yields the tick of a cancelled pull, and the schedule is unchanged.

    After `restart()`, the next pull begins a new schedule.

    Args:
        interval: Seconds, a positive finite number.
        count: The number of ticks before the end, 0 or more; `None` for no end.

    Raises:
        TypeError: `interval` is not a number, or `count` is not an integer.
        ValueError: `interval` is not positive and finite, or `count` is negative.
    """

    def __init__(self, interval: float, *, count: int | None = None) -> None:
        if count is not None:
            count = check_int("count", 0, count)
        self._description = (
            f"every {interval} s" if count is None else f"every {interval} s, {count} times"
        )
        super().__init__(AsyncIterSource(_Timer(check_positive("interval", interval), count)))

    def _repr_parts(self) -> Iterator[str]:
        yield self._description
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
        await _sleep_until(self._began + (tick + 1) * self._interval)
        self._next = tick + 1
        return tick


async def _sleep_until(time: float) -> None:
    """Sleep until a time on the loop's clock; return immediately if it has passed."""
    loop = asyncio.get_running_loop()
    while True:
        left = time - loop.time()
        if left <= 0:
            return
        # A timer may fire a little early: sleep the rest too.
        await asyncio.sleep(left)
