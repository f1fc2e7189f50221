"""A loop that runs what is ready in a random order.

asyncio runs callbacks in the order in which they became ready, so a program may lean on that order for years without
anybody having meant it to: one more `await` somewhere, another loop, eager tasks, and it breaks. A shuffled loop takes
the habit away. At each turn it runs what is ready in an order drawn from a seed; a run that fails can be had again.
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
    """A loop factory: at each turn, its loops run what is ready in a random order.

        with asyncio.Runner(loop_factory=shuffled_loop(7)) as runner:
            runner.run(main())

    Nothing is put off for more than its turn, and timers that come due in one turn keep their order. What is left to
    chance is what asyncio's documentation leaves open for tasks: who of those that are ready goes first. asyncio's own
    transports do count on the order of their callbacks, so this is no loop for sockets and subprocesses.

    Args:
        seed: Where the random order begins: the same program on the same seed runs in the same order. A second loop
            of one factory goes on where the first one stopped.
        clock: A virtual clock for the loops to live on; None for the real one.

    Raises:
        TypeError: `seed` is no integer, or `clock` no `VirtualClock`.
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
        # Chance, not a secret.
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
    """Puts what the loop will run in its next turn into a random order.

    In place: the loop goes on with this very deque, and threads may append to it meanwhile.
    """
    ready: deque[Any] = loop._ready
    if len(ready) > 1:
        turn = [ready.popleft() for _ in range(len(ready))]
        chance.shuffle(turn)
        ready.extendleft(reversed(turn))


# Each loop of CPython runs a turn by `_run_once`, out of `_ready`; there is no public place to step in.
class _ShuffledLoop(asyncio.SelectorEventLoop):
    # Who was woken in one turn is shuffled too, where other loops step them all by one callback.
    _wakes_one_by_one = True

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        super().__init__()

    def _run_once(self) -> None:
        _shuffle(self, self._chance)
        super()._run_once()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


class _ShuffledVirtualLoop(VirtualLoop):
    _wakes_one_by_one = True

    def __init__(self, chance: random.Random, clock: VirtualClock) -> None:
        self._chance = chance
        super().__init__(clock)

    def _run_once(self) -> None:
        _shuffle(self, self._chance)
        super()._run_once()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
