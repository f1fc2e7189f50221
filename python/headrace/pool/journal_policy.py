"""`JournalPolicy`: the decisions of a run with a journal. `Run` makes one, and the engine calls it."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import JournalStopped, JournalWarning
from headrace.task.failure import classify

if TYPE_CHECKING:
    from collections.abc import Hashable
    from contextvars import Context

    from headrace._core import Engine, JournalFile
    from headrace.errors import RecordedError, RunStopped
    from headrace.pool.config import Config
    from headrace.pool.journal_pass import JournalPass
    from headrace.task.retry import Retry


class JournaledRun(Protocol):
    """The run of a policy."""

    config: Config[Any]
    loop: asyncio.AbstractEventLoop
    context: Context

    @property
    def engine(self) -> Engine:
        """The engine."""
        ...

    def halt(self, error: RunStopped) -> None:
        """Call no more tasks."""
        ...

    def report(self, message: str, error: BaseException) -> None:
        """Report an error that no consumer can receive."""
        ...


class JournalPolicy:
    """The part of a journaled run that is written in Python. The engine calls the methods by their names."""

    def __init__(self, run: JournaledRun, owner: JournalPass, file: JournalFile) -> None:
        self._run = run
        self._owner = owner
        self._journal = owner.journal
        self._file = file
        self._key_of = owner.key_of
        self._stopped: JournalStopped | None = None
        # The event loop holds only a weak reference to it.
        self.syncing: asyncio.Task[None] | None = None
        self._warned = False

    def options(self) -> dict[str, Any]:
        """Return the options of `Engine.set_journal`."""
        journal = self._journal
        return {
            "file": self._file,
            "policy": self,
            "key_of": self._key_of,
            "waits_for_disk": journal.durability == "disk",
            "calls_failed": journal.retry_failed,
            "calls_unstored": journal.rerun,
            "budgets": journal.restore_spend(self._run.config.capacity),
        }

    def recorded_error(self, described: dict[str, str], attempts: int) -> RecordedError:
        """Return the error of a task that has failed in an earlier run."""
        return self._owner.recorded_error(described, attempts)

    def error_to_record(
        self, task_id: int, key: Hashable, error: BaseException, retry: Retry | None
    ) -> str | None:
        """Return the description of an error, or None if the task must be called again by a later run."""
        if not isinstance(error, Exception):
            # It was cancelled.
            return None
        try:
            verdict = classify(error) if retry is None else retry.verdict(error)
        except BaseException as raised:
            self._run.report(
                f"classify raised for {self._run.config.name_of(task_id, key)}", raised
            )
        else:
            if verdict.kind == "fatal":
                return None
        # Late: a pool without a journal needs no JSON.
        import json

        described = self._owner.describe(error)
        return None if described is None else json.dumps(described)

    def cannot_store(self, task_id: int, key: Hashable, error: BaseException) -> None:
        """Warn of a result that cannot be stored, once in a run."""
        if self._warned:
            return
        self._warned = True
        name = self._run.config.name_of(task_id, key)
        warnings.warn(
            f"{self._journal.path}: the result of {name} cannot be stored, and neither may others: {error}. It is delivered. "
            "A later run stops there, unless its journal has rerun=True",
            JournalWarning,
            stacklevel=2,
        )

    def unstored(self, task_id: int, key: Hashable) -> JournalStopped:
        """Return the error of a run that has reached a task whose result could not be stored."""
        name = self._run.config.name_of(task_id, key)
        return JournalStopped(
            f"{name} has ended in an earlier run, and its result could not be stored in {self._journal.path}: "
            "pass rerun=True to call it again"
        )

    def failed(self, error: BaseException, *unrecorded: Hashable) -> None:
        """Stop the run, because the journal cannot be used. The tasks with the keys `unrecorded` have ended and are not recorded."""
        if self._stopped is None:
            stopped = error if isinstance(error, JournalStopped) else None
            if stopped is None:
                stopped = JournalStopped(
                    f"{self._run.config.name} was stopped, because its journal cannot be written: {error}"
                )
                stopped.__cause__ = error
            self._stopped = stopped
            self._run.halt(stopped)
        self._stopped.unrecorded.extend(unrecorded)

    @property
    def has_stopped(self) -> bool:
        """Whether the run was stopped because the journal cannot be used."""
        return self._stopped is not None

    def start_sync(self) -> None:
        """Put the journal on disk, until no ended task waits for it."""
        run = self._run
        self.syncing = asyncio.Task(
            self._sync(),
            loop=run.loop,
            name=f"{run.config.name}: journal",
            context=run.context.copy(),
        )

    async def _sync(self) -> None:
        engine, goes_on = self._run.engine, True
        while goes_on:
            try:
                await self._file.sync()
            except asyncio.CancelledError:
                # For example by `asyncio.run`, which cancels all tasks at its end. The run cannot end without the sync.
                continue
            except Exception as error:
                unrecorded, _ = engine.synced(True)
                self.failed(error, *unrecorded)
                return
            _, goes_on = engine.synced(False)
