"""`RunJournal`: the use of a journal by one run. `Run` opens it, and leaves it when the run has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

    from headrace.pool.journal_pass import JournalPass
    from headrace.pool.journal_policy import JournaledRun, JournalPolicy


class RunJournal:
    """The journal of a run, from its start to its end.

    Args:
        journal: The pass over the source, which several runs may share.
    """

    def __init__(self, journal: JournalPass) -> None:
        self._journal = journal
        self._source_has_ended = False
        # None before the file is open, and after it was left.
        self._policy: JournalPolicy | None = None

    @classmethod
    def of(cls, journal: JournalPass | None) -> Self | None:
        """Return the journal of a run; None for a run without one."""
        return None if journal is None else cls(journal)

    async def open(self, run: JournaledRun) -> None:
        """Open the file, and pass its options to the engine."""
        # Late: an option that most programs do not use.
        from headrace.pool.journal_policy import JournalPolicy

        file = await self._journal.begin(run.loop)
        self._policy = JournalPolicy(run, self._journal, file)
        run.engine.set_journal(self._policy.options())

    def note_source_end(self) -> None:
        """Note that the source has ended."""
        self._source_has_ended = True

    def leave(self, run: JournaledRun) -> None:
        """Close the journal if the pass over the source is over. Idempotent."""
        policy, self._policy = self._policy, None
        if policy is None:
            return
        is_over = self._source_has_ended and not run.config.unstarted
        try:
            self._journal.end() if is_over else self._journal.suspend()
        except OSError as error:
            # If the run was stopped because of the journal, its consumer has the error.
            if not policy.has_stopped:
                run.report(f"the journal of {run.config.name} cannot be closed", error)
