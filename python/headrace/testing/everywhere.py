"""Any piece of asynchronous work, cancelled at every place where it waits.

`sweep` does this for streams and knows what a stream must do. Here the case itself says what must hold.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.testing.strike import MOST, Strike, done, guarded, raise_for, whole

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable

    from headrace.testing.sweep import Way

__all__ = ["Outcome", "cancel_everywhere"]


_WAYS: tuple[Way, ...] = ("cancel", "late", "twice")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the work of a case ended."""

    cancelled: bool
    """Whether it ended by being cancelled."""
    value: Any
    """What it returned; None unless it did."""
    error: BaseException | None
    """What it raised, other than the cancellation; None unless it did."""


async def cancel_everywhere(
    make_case: Callable[[], AsyncGenerator[Coroutine[Any, Any, Any], Outcome]],
    *,
    ways: Iterable[Way] = _WAYS,
    timeout: float = 60.0,
) -> int:
    """Runs a case once for each place where its work waits, and cancels the work there.

        async def case():
            capacity = CapacitySource(1)

            async def work() -> None:
                async with capacity.acquire():
                    await asyncio.sleep(0)

            outcome = yield work()
            assert outcome.cancelled or outcome.error is None
            assert capacity.held == 0, "a slot leaked"

        async def test_law_8_mine() -> None:
            await cancel_everywhere(case)

    A case is an async generator function. It builds what it needs, yields the coroutine to be cancelled, gets back how
    that ended, and says by `assert` what must hold. It runs once with nothing cancelled, then
    once for each suspension of the coroutine and each way, until no suspension is left. The tasks that it starts beside
    the work must have ended when it ends.

    Args:
        make_case: The case; called anew for each run.
        ways: How to cancel: `"cancel"` where it waits, `"late"` when what it waits for is there already, `"twice"`
            where it waits and again where it waits next.
        timeout: After how many seconds on the loop's clock a run counts as hung.

    Returns:
        How many places were tried. 0: the work never waited.

    Raises:
        SweepError: A run broke what its case asserts, hung, or left tasks; the message says where.
        ValueError: `ways` has a way that is none of these.

    Cancel safety: a cancelled call cancels its run, and waits for it.
    """
    chosen = tuple(ways)
    if unknown := set(chosen) - set(_WAYS):
        raise ValueError(
            f"cancel_everywhere: ways must be among {', '.join(map(repr, _WAYS))}, got {sorted(unknown)!r}"
        )

    async def run(strike: Strike) -> str | None:
        case = make_case()
        try:
            task = asyncio.ensure_future(whole(strike.through(await anext(case))))
            await done(task)
            outcome = _outcome(task)
            if not strike.hits and outcome.error is not None:
                raise outcome.error
            try:
                (await case.asend(outcome)).close()
            except StopAsyncIteration:
                return None
            return "the case yielded twice"
        finally:
            await case.aclose()

    if complaint := await guarded(run, Strike("cancel", -1), timeout):
        raise_for([f"left alone: {complaint}"], 1)
    complaints: list[str] = []
    places = 0
    for way in chosen:
        for at in range(MOST):
            strike = Strike(way, at)
            if complaint := await guarded(run, strike, timeout):
                complaints.append(f'"{way}" at suspension {at}: {complaint}')
            if not strike.hits:
                break
            places += 1
    raise_for(complaints, places)
    return places


def _outcome(task: asyncio.Task[Any]) -> Outcome:
    if task.cancelled():
        return Outcome(cancelled=True, value=None, error=None)
    error = task.exception()
    return Outcome(cancelled=False, value=None if error else task.result(), error=error)
