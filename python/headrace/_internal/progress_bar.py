"""`open_bar`: a progress bar of tqdm or rich, whichever is installed. `headrace.amap(progress=True)` uses it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Protocol

    class Bar(Protocol):
        """A bar on the standard error stream."""

        def update(self, done: int, failed: int) -> None:
            """Show the number of calls that have ended, and of those that failed."""

        def close(self) -> None:
            """Leave the bar as it is. Idempotent."""


def check_bar() -> None:
    """Check that a bar can be shown.

    Raises:
        ImportError: Neither tqdm nor rich is installed.
    """
    if find_spec("tqdm") is None and find_spec("rich") is None:
        raise ImportError(
            "progress=True needs tqdm or rich: install headrace[progress], or pass a function of (done, total)"
        )


def open_bar(name: str, total: int | None) -> Bar:
    """Show a bar: that of tqdm, which also knows notebooks, otherwise that of rich."""
    return _Tqdm(name, total) if find_spec("tqdm") is not None else _Rich(name, total)


class _Tqdm:
    def __init__(self, name: str, total: int | None) -> None:
        self._bar: Any = import_module("tqdm.auto").tqdm(total=total, desc=name)
        self._failed = 0

    def update(self, done: int, failed: int) -> None:
        if failed != self._failed:
            self._failed = failed
            self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Rich:
    def __init__(self, name: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TextColumn

        columns = (
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(name, total=total, failed="")
        self._progress.start()

    def update(self, done: int, failed: int) -> None:
        shown = f"{failed} failed" if failed else ""
        self._progress.update(self._task, completed=done, failed=shown)

    def close(self) -> None:
        self._progress.stop()
