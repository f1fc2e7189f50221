"""`open_bar`: a progress bar of tqdm or rich, whichever is installed; in a notebook, one of HTML.

`headrace.amap(progress=True)` uses it. In a notebook the bars of tqdm and rich need ipywidgets, and a saved notebook does not
show them; a display of HTML that is updated needs nothing.
"""

from __future__ import annotations

import sys
import time
from html import escape
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Protocol

    class Bar(Protocol):
        """A bar on the standard error stream, or in the output of a cell."""

        def update(self, done: int, failed: int) -> None:
            """Show the number of calls that have ended, and of those that failed."""

        def close(self) -> None:
            """Leave the bar as it is. Idempotent."""


def check_bar() -> None:
    """Check that a bar can be shown.

    Raises:
        ImportError: Neither tqdm nor rich is installed, outside a notebook.
    """
    if not _in_notebook() and find_spec("tqdm") is None and find_spec("rich") is None:
        raise ImportError(
            "progress=True needs tqdm or rich: install headrace[progress], or pass a function of (done, total)"
        )


def open_bar(name: str, total: int | None) -> Bar:
    """Show a bar: in a notebook that of HTML, elsewhere that of tqdm or of rich."""
    if _in_notebook():
        return _Notebook(name, total)
    return _Tqdm(name, total) if find_spec("tqdm") is not None else _Rich(name, total)


def _in_notebook() -> bool:
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    # The shell of a terminal has no kernel.
    return getattr(shell, "kernel", None) is not None


class _Notebook:
    _PERIOD = 0.1

    def __init__(self, name: str, total: int | None) -> None:
        self._name, self._total = name, total
        self._done = self._failed = 0
        self._is_closed = False
        self._next = time.monotonic() + self._PERIOD
        self._handle: Any = import_module("IPython.display").display(self, display_id=True)

    def update(self, done: int, failed: int) -> None:
        self._done, self._failed = done, failed
        if done == self._total or time.monotonic() >= self._next:
            self._show()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._show()

    def _show(self) -> None:
        self._next = time.monotonic() + self._PERIOD
        self._handle.update(self)

    def __repr__(self) -> str:
        count = f"{self._done:,}" if self._total is None else f"{self._done:,}/{self._total:,}"
        return f"{self._name}: {count}{f', {self._failed:,} failed' if self._failed else ''}"

    def _repr_html_(self) -> str:
        bar = ""
        if self._total:
            bar = f'<progress value="{self._done}" max="{self._total}"></progress> '
        elif self._total is None and not self._is_closed:
            # It moves to and fro.
            bar = "<progress></progress> "
        return f"<div>{bar}{escape(repr(self))}</div>"


class _Tqdm:
    def __init__(self, name: str, total: int | None) -> None:
        self._bar: Any = import_module("tqdm").tqdm(total=total, desc=name)
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
