"""The suites, their releases and files, and the cases that do not apply, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True)
class Suite:
    """A release of a project that carries its tests.

    Args:
        name: Its name in the package index.
        version: The release.
        select: Files, and classes in them, as arguments of pytest.
        excluded: The reason why a case does not apply, by its name without parameters: `Class.test`, or `test` in any class.
            The case is still run, and must fail.
        not_run: Excluded cases whose failure would leave something behind: a thread that waits forever, an open loop.
        options: Options of pytest from the project's own configuration.
    """

    name: str
    version: str
    select: tuple[str, ...]
    excluded: Mapping[str, str]
    not_run: frozenset[str] = frozenset()
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "janus",
            "2.0.0",
            ("tests/test_async.py", "tests/test_mixed.py", "tests/test_sync.py"),
            {
                "test_get_loop_ok": "reads the loop of the queue, which has none",
                "test_get_loop_different_loop": "reads the loop of the queue, which has none",
                "test_negative_timeout_raises_exception": "the exact text of the error",
                "test_failing_queue": "overrides _put and _get",
                "test_closed_loop_non_failing": "counts the calls of loop.is_closed()",
            },
            frozenset({"test_get_loop_different_loop"}),
            options=("-o", "asyncio_default_fixture_loop_scope=function"),
        ),
        Suite(
            "culsans",
            "0.11.0",
            ("tests/culsans",),
            {
                "test_setters": "maxsize of a queue cannot be changed",
                "test_growing_and_shrinking": "maxsize of a queue cannot be changed",
                "test_peek": "a queue has no peek()",
                "test_clear": "a queue is emptied by shutdown(immediate=True) only",
                "test_failing_queue": "overrides _put and _get",
                "test_shrinking_queue": "maxsize of a queue cannot be changed",
            },
            frozenset({"test_growing_and_shrinking", "test_clear"}),
            options=("-o", "asyncio_default_fixture_loop_scope=function"),
        ),
        Suite(
            "anyio",
            "4.16.0",
            tuple(
                f"tests/test_synchronization.py::{kind}"
                for kind in ("TestLock", "TestSemaphore", "TestCapacityLimiter")
            ),
            {
                "test_acquire_twice_async": "the exact text of the error",
                "test_acquire_twice_sync": "acquiring again in the same task is no error",
                "TestLock.test_cancel_after_release": "reads the holding task; a capacity knows only leases",
                "test_owner_after_release": "reads the holding task; a capacity knows only leases",
                "test_bad_init_type": "a limit may be a fraction",
                "test_bad_init_value": "the exact text of the error",
                "test_borrow_twice": "the exact text of the error",
                "test_bad_release": "borrowers exist only in the replacement; releasing a lease twice is no error",
                "test_current_default_thread_limiter": "reads anyio's own threads",
                "TestCapacityLimiter.test_instantiate_outside_event_loop": "a limit may be a fraction",
                "test_float_infinity_outside_event_loop": "a limit is finite",
                "test_cancel_during_acquire_on_behalf_of": "an acquire that is granted at once does not yield to the loop",
            },
            # Many cases end without releasing.
            options=(
                *("-o", "anyio_mode=auto", "-p", "no:asyncio"),
                *("-W", "ignore:a lease was collected:ResourceWarning"),
            ),
        ),
    )
}
