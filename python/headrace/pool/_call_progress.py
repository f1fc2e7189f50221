"""`CallProgress`: counts the calls of `amap` that have ended, for a bar or a function of the user."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING

from headrace._internal.reprs import describe_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace._internal.progress_bar import Bar


class CallProgress:
    """Counts the calls that have ended, and reports them."""

    def __init__(
        self, report: Callable[[int, int | None], object] | None, name: str, total: int | None
    ) -> None:
        self._report = report
        self._name = name
        self._total = total
        self._bar: Bar | None = None
        self._done = self._failed = 0

    def open(self) -> None:
        """Begin to count, and show the bar if there is no function to call."""
        self._done = self._failed = 0
        if self._report is None:
            from headrace._internal.progress_bar import open_bar

            self._bar = open_bar(self._name, self._total)

    def completed(self, value: object) -> None:
        """Count a call that has returned."""
        self._ended()

    def failed(self, error: BaseException) -> None:
        """Count a call that has failed."""
        self._failed += 1
        self._ended()

    def _ended(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._done, self._failed)
        elif self._report is not None:
            self._report(self._done, self._total)

    def close(self) -> None:
        """Close the bar. Idempotent."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __del__(self) -> None:
        # A bar of rich has a thread.
        if getattr(self, "_bar", None) is not None:
            self.close()


def as_progress(progress: object, name: str, items: object) -> CallProgress | None:
    """Return the progress that `progress` means: True for a bar, or a function of (done, total).

    Raises:
        ImportError: `progress` is True, and no package for a bar is installed.
        TypeError: `progress` is none of these.
    """
    if progress is False or progress is None:
        return None
    total = len(items) if isinstance(items, Sized) else None
    if progress is True:
        from headrace._internal.progress_bar import check_bar

        check_bar()
        return CallProgress(None, name, total)
    if not callable(progress):
        raise TypeError(
            f"progress must be True, False or a function of (done, total), got {describe_value(progress)}"
        )
    return CallProgress(progress, name, total)
