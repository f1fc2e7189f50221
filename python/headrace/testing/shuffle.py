"""An event loop that runs ready callbacks in a random order. Tests open one with `shuffled_loop()`.

asyncio runs callbacks in the order in which they became ready. A program can depend on that order by accident, and break
with one more `await`, another event loop or eager tasks. A shuffled loop exposes this: in each iteration it runs the ready
callbacks in an order drawn from a seed. The seed reproduces a failed run.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.reprs import describe_value, format_repr
from headrace.testing.virtual_clock import VirtualClock, VirtualLoop

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator


def shuffled_loop(
    seed: int, *, clock: VirtualClock | None = None
) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return a loop factory whose loops run ready callbacks in a random order in each iteration.

        with asyncio.Runner(loop_factory=shuffled_loop(7)) as runner:
            runner.run(main())

    No callback is delayed to a later iteration, and timers that are due in the same iteration keep their order. Only the
    order of ready tasks is random, which asyncio's documentation does not specify. asyncio's own transports depend on the
    order of their callbacks, so do not use this loop for sockets and subprocesses.

    Args:
        seed: The seed of the random order: the same program with the same seed runs in the same order. The second loop of
            a factory continues the random sequence of the first one.
        clock: A virtual clock for the loops; None for the real clock.

    Raises:
        TypeError: `seed` is not an integer, or `clock` is not a `VirtualClock`.
    """
    if type(seed) is not int:
        raise TypeError(f"shuffled_loop: seed must be an integer, got {describe_value(seed)}")
    if clock is not None and not isinstance(cast("object", clock), VirtualClock):
        raise TypeError(
            f"shuffled_loop: clock must be a VirtualClock or None, got {describe_value(clock)}"
        )
    return _Factory(seed, clock)


class _Factory:
    def __init__(self, seed: int, clock: VirtualClock | None) -> None:
        self._seed = seed
        # Not used for security.
        self._chance = random.Random(seed)  # noqa: S311
        self._clock = clock

    def __call__(self) -> asyncio.AbstractEventLoop:
        if self._clock is None:
            return _ShuffledLoop(self._chance)
        return _ShuffledVirtualLoop(self._chance, self._clock)

    def __repr__(self) -> str:
        return format_repr("shuffled_loop", self._repr_parts())

    def _repr_parts(self) -> Iterator[str]:
        yield f"seed {self._seed}"
        if self._clock is not None:
            yield repr(self._clock)


def _shuffle(loop: Any, chance: random.Random) -> None:
    """Shuffle the callbacks that the loop runs in its next iteration.

    In place: the loop keeps a reference to this deque, and threads may append to it concurrently.
    """
    ready: deque[Any] = loop._ready
    if len(ready) > 1:
        callbacks = [ready.popleft() for _ in range(len(ready))]
        chance.shuffle(callbacks)
        ready.extendleft(reversed(callbacks))


class _ShuffledLoop(asyncio.SelectorEventLoop):
    # Resume each woken waiter by its own callback, which is then shuffled; other loops use one callback for all.
    _wakes_one_by_one = True

    def __init__(self, chance: random.Random, *arguments: Any) -> None:
        self._chance = chance
        super().__init__(*arguments)

    def _run_once(self) -> None:
        # CPython's event loops run an iteration in `_run_once`, from `_ready`; there is no public hook.
        _shuffle(self, self._chance)
        super()._run_once()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


class _ShuffledVirtualLoop(_ShuffledLoop, VirtualLoop):
    """A shuffled loop on a virtual clock."""
