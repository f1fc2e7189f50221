"""The progress of the command, on a terminal and without one."""

from __future__ import annotations

import importlib.util
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from headrace.cli.progress import Tally, TextDisplay, Throughput, choose_display, format_clock
from tests.command import Files, command

if TYPE_CHECKING:
    from pathlib import Path


def test_terminal_shows_a_bar(tmp_path: Path, files: Files) -> None:
    files(*range(100))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command("work:double"),
        cwd=tmp_path,
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # on Linux, the end of a pseudo-terminal is an error
            pass
        os.close(ours)
        assert process.wait() == 0
    text = shown.decode()
    assert "━" in text
    assert "100%" in text
    assert "100 done" in text
    assert "0 failed" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is shown again


def test_terminal_without_rich_shows_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def isatty() -> bool:
        return True

    monkeypatch.setattr(sys.stderr, "isatty", isatty, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not isinstance(choose_display(5.0), TextDisplay)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert isinstance(choose_display(5.0), TextDisplay)


def test_throughput_is_that_of_the_last_seconds() -> None:
    now = 0.0
    pace = Throughput(span=10, clock=lambda: now)
    tally = Tally(total_size=1000)
    assert pace.measure(tally) == (0.0, None)
    for now in range(1, 21):
        tally.done, tally.settled_size = now, now * 10
        assert pace.measure(tally) == (1.0, 100 - now)
    # Ten times faster: after the span, the slow period has no effect.
    paces: list[tuple[float, float | None]] = []
    while now < 30:
        now += 1
        tally.done, tally.settled_size = tally.done + 10, tally.settled_size + 50
        paces.append(pace.measure(tally))
    assert paces[-1] == (10.0, 300 / 50)
    tally.total_size = None
    assert pace.measure(tally)[1] is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-:--"), (0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")],
)
def test_format_clock(seconds: float | None, shown: str) -> None:
    assert format_clock(seconds) == shown
