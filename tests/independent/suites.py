"""Which suites are run, from which files of which release, and which cases do not apply and why."""

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
        name: What the package index calls it.
        version: The release.
        select: Files, and classes in them, as pytest takes them.
        excluded: Why a case does not apply, by its name, without parameters; `Class.test` or `test` in any class. It is run all
            the same, and has to fail.
        not_run: Those that would leave something behind as they fail: a thread that waits for ever, a loop that is open.
        options: What the project's own configuration tells pytest.
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
                "test_get_loop_ok": "asks for the loop to which the queue belongs; it belongs to none",
                "test_get_loop_different_loop": "asks for the loop to which the queue belongs; it belongs to none",
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
                "test_setters": "the bound of a queue stays as it was made",
                "test_growing_and_shrinking": "the bound of a queue stays as it was made",
                "test_peek": "a queue shows no item that it does not give",
                "test_clear": "a queue is emptied by shutdown(immediate=True) only",
                "test_failing_queue": "overrides _put and _get",
                "test_shrinking_queue": "the bound of a queue stays as it was made",
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
                "test_acquire_twice_sync": "trying for what the task itself holds is no error: there is none now",
                "TestLock.test_cancel_after_release": "asks which task holds; a capacity knows its leases",
                "test_owner_after_release": "asks which task holds; a capacity knows its leases",
                "test_bad_init_type": "a limit may be a fraction",
                "test_bad_init_value": "the exact text of the error",
                "test_borrow_twice": "the exact text of the error",
                "test_bad_release": "borrowers are the stand-in's; a lease that is released twice is released",
                "test_current_default_thread_limiter": "looks at anyio's own threads",
                "TestCapacityLimiter.test_instantiate_outside_event_loop": "a limit may be a fraction",
                "test_float_infinity_outside_event_loop": "a limit is finite",
                "test_cancel_during_acquire_on_behalf_of": "an acquire that finds room does not let the loop turn",
            },
            # Many cases end with what they acquired.
            options=(
                *("-o", "anyio_mode=auto", "-p", "no:asyncio"),
                *("-W", "ignore:a lease was collected:ResourceWarning"),
            ),
        ),
    )
}
