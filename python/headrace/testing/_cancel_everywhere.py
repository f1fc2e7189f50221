"""`cancel_everywhere`: cancels a coroutine at each of its suspension points.

`sweep` does this for streams and checks their guarantees. Here the case contains its own assertions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from headrace._internal.reprs import describe_value
from headrace.testing.fault_injection import (
    Injection,
    MisfitError,
    Results,
    as_coroutine,
    check_case,
    check_names,
    check_uninterrupted,
    try_everywhere,
    wait_or_cancel,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.testing._sweep import Interruption


T = TypeVar("T")

_INTERRUPTIONS: tuple[Interruption, ...] = ("cancel", "late", "twice")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of the work of a case."""

    cancelled: bool
    """Whether the work was cancelled."""
    value: Any
    """The return value; None if the work did not return."""
    error: BaseException | None
    """The exception that the work raised, other than the cancellation; None without one."""


async def cancel_everywhere(
    make_case: Callable[[], AsyncGenerator[Coroutine[Any, Any, Any], Outcome]],
    *,
    interruptions: Iterable[Interruption] = _INTERRUPTIONS,
    timeout: float = 60.0,
) -> int:
    """Run a case once for each suspension of its work, and cancel the work there.

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

    A case is an async generator function. It creates its objects, yields the coroutine to cancel, receives its
    outcome, and checks it by `assert`. It runs once without a cancellation, then once for each suspension of the coroutine
    and each way to cancel. All other tasks that it starts must have ended when it ends.

    Args:
        make_case: The case; called for each run.
        interruptions: How to cancel: `"cancel"` where it waits, `"late"` when the awaited result is already available, `"twice"`
            where it waits and again where it waits next.
        timeout: The seconds on the loop's clock after which a run counts as hung.

    Returns:
        The number of places tried. 0 if the work never waited.

    Raises:
        SweepError: An assertion of a case failed, a run hung or left tasks, and the message names the place; or the work
            waits at more than 10,000 places.
        TypeError: `make_case` is not an async generator function, or does not yield a coroutine; `interruptions` is not an
            iterable, or `timeout` not a number.
        ValueError: `interruptions` is empty or has an unknown one, or `timeout` is not positive.

    Cancel safety: a cancelled call cancels its run, and waits for it.
    """
    check_case("cancel_everywhere", "make_case", make_case, timeout)
    tried = check_names("cancel_everywhere", "interruptions", interruptions, _INTERRUPTIONS)

    async def run(injection: Injection) -> str | None:
        case = _checked(make_case())
        try:
            work = await _work(case)
            task = asyncio.ensure_future(as_coroutine(injection.through(work)))
            await wait_or_cancel(task)
            outcome = _outcome(task)
            if not injection.hits and outcome.error is not None:
                raise outcome.error
            try:
                (await case.asend(outcome)).close()
            except StopAsyncIteration:
                return None
            return "the case yielded twice"
        finally:
            await case.aclose()

    await check_uninterrupted(run, timeout)
    results = Results()
    for interruption in tried:
        name = f'"{interruption}" at suspension {{}}'
        await try_everywhere(partial(Injection, interruption), run, timeout, results, name)
    return results.total()


_EXPECTED = (
    "make_case must be an async generator function, which yields the coroutine to be cancelled"
)


def _checked(case: T) -> T:
    if isinstance(cast("object", case), AsyncGenerator):
        return case
    if isinstance(case, Coroutine):
        case.close()
    raise MisfitError(
        f"cancel_everywhere: {_EXPECTED}; calling it gave {describe_value(cast('object', case))}"
    )


async def _work(
    case: AsyncGenerator[Coroutine[Any, Any, Any], Outcome],
) -> Coroutine[Any, Any, Any]:
    """Return the coroutine that a case yields."""
    try:
        work = await anext(case)
    except StopAsyncIteration:
        raise MisfitError(f"cancel_everywhere: {_EXPECTED}; it yielded nothing") from None
    if isinstance(cast("object", work), Coroutine):
        return work
    raise MisfitError(
        f"cancel_everywhere: {_EXPECTED}; it yielded {describe_value(cast('object', work))}"
    )


def _outcome(task: asyncio.Task[Any]) -> Outcome:
    if task.cancelled():
        return Outcome(cancelled=True, value=None, error=None)
    error = task.exception()
    return Outcome(cancelled=False, value=None if error else task.result(), error=error)
