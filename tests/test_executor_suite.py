"""The conformance suite of executors: the executors of the package and one of a third party pass it, and faulty ones do not."""

from __future__ import annotations

import asyncio
import re
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from headrace import ProcessExecutor
from headrace.pool import CancelResult, CancelSupport, LoopExecutor, ThreadExecutor
from headrace.testing.executors import CASES, cases_for
from tests.pool_executors import RemoteExecutor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextvars import ContextVar

    from headrace.pool import Executor
    from headrace.testing.executors import Case, MakeExecutor


def loop(*, carry: Sequence[ContextVar[Any]] = ()) -> Executor:
    return LoopExecutor()


def thread(*, carry: Sequence[ContextVar[Any]] = ()) -> Executor:
    return ThreadExecutor()


def remote(*, carry: Sequence[ContextVar[Any]] = ()) -> Executor:
    return RemoteExecutor(
        6, window=4, carry=carry, cancel_support=CancelSupport.COOPERATIVE, pickles=True
    )


def process(*, carry: Sequence[ContextVar[Any]] = ()) -> Executor:
    return ProcessExecutor(2, prefetch=1, window=4, grace=0.2, carry=carry)


EXECUTORS: dict[str, MakeExecutor] = {
    "loop": loop,
    "thread": thread,
    "remote": remote,
    "process": process,
}


@pytest.mark.parametrize(
    ("make", "case"),
    [
        pytest.param(make, case, id=f"{name}-{case}")
        for name, make in EXECUTORS.items()
        for case in cases_for(make)
    ],
)
async def test_executor_conforms(make: MakeExecutor, case: Case) -> None:
    await case.run(make)


def test_cases_are_named_and_applied() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 80
    assert all(re.fullmatch(r"[A-Z`].*\.", case.rule) for case in CASES)
    # Every case applies to a row above.
    applied = {case.name for make in EXECUTORS.values() for case in cases_for(make)}
    assert {str(case) for case in CASES} == applied


# Faulty executors.


class Faulty(LoopExecutor):
    """An executor with a fault in the listener or the handle."""

    def submit(self, task: Any, listener: Any = None) -> Any:
        return super().submit(task, listener and self.spoilt(listener))

    def spoilt(self, listener: Any) -> Any:
        names = ("name", "called", "emit", "settle", "returned", "raised")
        return SimpleNamespace(**{name: getattr(listener, name) for name in names})


class Silent(Faulty):
    def spoilt(self, listener: Any) -> Any:
        spoilt = super().spoilt(listener)
        spoilt.returned = lambda _: None
        return spoilt


class Twice(Faulty):
    def spoilt(self, listener: Any) -> Any:
        spoilt = super().spoilt(listener)

        def returned(value: object) -> None:
            listener.returned(value)
            listener.returned(value)

        spoilt.returned = returned
        return spoilt


class Uncalled(Faulty):
    def spoilt(self, listener: Any) -> Any:
        spoilt = super().spoilt(listener)
        spoilt.called = lambda: None
        return spoilt


class Elsewhere(Faulty):
    def spoilt(self, listener: Any) -> Any:
        spoilt = super().spoilt(listener)

        def called() -> None:
            notifying = threading.Thread(target=listener.called)
            notifying.start()
            notifying.join()

        spoilt.called = called
        return spoilt


class Eager(Faulty):
    """It does not wait for room."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    def spoilt(self, listener: Any) -> Any:
        spoilt = super().spoilt(listener)

        def emit(value: object) -> None:
            self.waiting.append(asyncio.ensure_future(self.wait(listener.emit(value))))

        spoilt.emit = emit
        return spoilt

    async def wait(self, room: Any) -> None:
        await asyncio.wait_for(room, 0.05)

    async def aclose(self, grace: float | None = None) -> None:
        await asyncio.gather(*self.waiting, return_exceptions=True)


class Hasty(Faulty):
    """Its handles say that the work has stopped."""

    def submit(self, task: Any, listener: Any = None) -> Any:
        handle = super().submit(task, listener)
        if listener is None:
            return handle

        def cancel() -> CancelResult:
            handle.cancel()
            return CancelResult.STOPPED

        return SimpleNamespace(cancel=cancel, inside=handle.inside, leave=handle.leave)


class Careless(Faulty):
    """All tasks share a context."""

    def submit(self, task: Any, listener: Any = None) -> Any:
        class Shared(SimpleNamespace):
            def copy(self) -> Any:
                return task.context

        shared = SimpleNamespace(fn=task.fn, args=task.args, context=Shared())
        return super().submit(shared if listener else task, listener)


@pytest.mark.parametrize(
    ("kind", "case", "message"),
    [
        (Silent, "result_follows_the_call", r"not ended after .* waited for the outcome of"),
        (Twice, "result_follows_the_call", r"returned\(\) was called after the outcome"),
        (Uncalled, "values_travel_both_ways", r"returned\(\) was called before called\(\)"),
        (Elsewhere, "result_follows_the_call", r"called\(\) was called on another thread"),
        (Eager, "value_waits_until_the_previous_one_is_accepted", "the values without room"),
        (Eager, "stream_stays_within_the_window", "before the previous value was accepted|window"),
        (Hasty, "cancelled_async_function_ends_once", "STOPPED, and the listener was not notified"),
        (Careless, "work_runs_in_a_copy_of_the_context", "the values of the variables"),
    ],
)
async def test_faulty_executor_fails(kind: type[Faulty], case: str, message: str) -> None:
    def make(*, carry: Sequence[ContextVar[Any]] = ()) -> Executor:
        return kind()

    [found] = [one for one in CASES if str(one) == case]
    with pytest.raises(AssertionError, match=message) as raised:
        await found.run(make, timeout=0.5)
    assert raised.value.__notes__[-1] == f"case {case}: {found.rule}"


async def test_case_that_does_not_apply_is_refused() -> None:
    [case] = [one for one in CASES if str(one) == "async_function_is_awaited"]
    assert case.missing(ThreadExecutor.capabilities) == ["streams"]
    with pytest.raises(ValueError, match="case async_function_is_awaited does not apply: streams"):
        await case.run(thread)
