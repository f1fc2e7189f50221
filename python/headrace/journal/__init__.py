"""Journals: files that say which calls of a run have ended, so that a later run does not pay for them again."""

from typing import TYPE_CHECKING

from headrace._internal.lazy_import import lazy_exports

if TYPE_CHECKING:
    from headrace.errors import (
        JournalError as JournalError,
        JournalStopped as JournalStopped,
        JournalWarning as JournalWarning,
        RecordedError as RecordedError,
    )
    from headrace.journal.journal import Journal as Journal
    from headrace.journal.records import (
        JournalRecord as JournalRecord,
        read_records as read_records,
    )
    from headrace.journal.replay import PullJournalObj as PullJournalObj
    from headrace.journal.sink import SinkJournal as SinkJournal
else:
    __getattr__, __dir__ = lazy_exports(__name__)
