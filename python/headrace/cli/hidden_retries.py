"""`HiddenRetries`: prints one message if an SDK repeats calls by itself. `map` creates it, and `record_runner` passes all errors to it."""

from __future__ import annotations

from headrace.cli.stderr import eprint
from headrace.task._sdk_retries import SdkRetries, sdk_retries


class HiddenRetries:
    """Looks for retries of an SDK, which the limits of the run do not count, and for which no cooldown waits."""

    def __init__(self) -> None:
        self._is_reported = False

    def look_at(self, error: BaseException) -> None:
        """Print a message if an error shows such retries, unless one was printed before."""
        if self._is_reported:
            return
        found = sdk_retries(error)
        if found is not None:
            self.report(found)

    def report(self, found: SdkRetries) -> None:
        """Print a message about such retries, unless one was printed before."""
        if self._is_reported:
            return
        self._is_reported = True
        times = "once" if found.count == 1 else f"{found.count:,} times"
        eprint(
            f"{found.sdk} repeated a failed call {times} by itself: such calls are not limited, and no cooldown delays them; "
            f"create its client with {found.remedy}, and use --retries"
        )
