"""Signals that stop `headrace map`, at every moment from start to exit.

Starting a process takes 0.1 s. The runs here are therefore forked from a process that has imported all modules.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import (
    Files,
    command,
    files_in,
    interrupt,
    listing,
    rest,
    results,
    running,
    wait_for_line,
)

if TYPE_CHECKING:
    from collections.abc import Generator

# Reads requests from standard input, one per line: the arguments, and a program to run before the command. The command
# runs in a forked child. The server prints the child's process id and, after an empty line, its wait status. The child
# is reaped only then, so its process id is not reused before.
SERVER = """
import json, os, sys
import asyncio, headrace.cli.map, headrace.cli.main, headrace.cli.output, headrace.cli.report.page
import headrace.pool, headrace.pull.transform

for line in sys.stdin:
    arguments, before = json.loads(line)
    child = os.fork()
    if not child:
        error = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(error, 2)
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        os.dup2(1, 0)
        break
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitpid(child, 0)[1], flush=True)
else:
    sys.exit()
sys.argv[1:] = arguments
exec(before)
try:
    from headrace.cli.start import start
except ImportError:
    from headrace.cli.main import main as start
sys.exit(start())
"""

# Logs each finished record. No `await` separates the log entry from the return, so no signal is handled between them.
TRACED = """
import os

log = os.open("finished", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def traced(n):
    if n < 0:
        raise ValueError(n)
    os.write(log, b"%d\\n" % n)
    return n

def in_threads(n):
    return n
"""

COUNT = 40


@dataclass(frozen=True)
class Outcome:
    code: int
    """The exit code; negative if a signal killed the process."""
    stderr: str


class Server:
    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self._process = process

    def begin(self, *arguments: str, before: str = "") -> int:
        """Start a run and return its process id."""
        assert self._process.stdin is not None
        print(json.dumps([["map", *arguments], before]), file=self._process.stdin, flush=True)
        return int(self._answer())

    def end(self) -> Outcome:
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        code = os.waitstatus_to_exitcode(int(self._answer()))
        return Outcome(code, (self.folder / "stderr").read_text(encoding="utf-8"))

    def run(self, *arguments: str, before: str = "") -> Outcome:
        self.begin(*arguments, before=before)
        return self.end()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def serving(folder: Path) -> Generator[Server]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Server(folder, process)
        finally:
            process.kill()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "traced.py").write_text(TRACED, encoding="utf-8")
    return files_in(tmp_path)


def options(function: str = "traced:traced") -> list[str]:
    where = ["--input", "in.jsonl", "--output", "out.jsonl", "--errors", "errors.jsonl"]
    return [function, *where, "--report", "report.html", "--limit", "4"]


def clean(folder: Path) -> None:
    for name in listing(folder) - {"in.jsonl", "traced.py", "work.py"}:
        (folder / name).unlink()


def check(folder: Path, outcome: Outcome, *, whole: int, codes: set[int]) -> None:
    """Assert that no finished result is lost: all files are whole, or partial files have the finished lines."""
    names = listing(folder)
    assert "Traceback" not in outcome.stderr, outcome.stderr
    assert outcome.code in {whole, *codes}, outcome
    assert not [name for name in names if name.startswith(".")], names
    finished = results(folder / "finished")
    if outcome.code == whole:
        assert results(folder / "out.jsonl") == list(range(COUNT))
        assert len(results(folder / "errors.jsonl")) == 1
        assert "out.jsonl.partial" not in names
    else:
        assert sorted(results(folder / "out.jsonl.partial")) == finished
        assert "out.jsonl" not in names
        assert f"interrupted: {len(finished)} done" in outcome.stderr
    assert (folder / "report.html").read_bytes().endswith(b"</html>\n")


# Finishing

# Where signals are sent: at the start of the n-th call of a function, given by its owner and name.
PLACES = {
    "before the files": ("headrace.cli.map._Map", "_finish", 1),
    "output is synchronised": ("os", "fsync", 1),
    "output is renamed": ("pathlib.Path", "replace", 1),
    "its directory is synchronised": ("os", "fsync", 2),
    "errors are synchronised": ("os", "fsync", 3),
    "report is made": ("headrace.cli.report.page", "render", 1),
    "report is renamed": ("pathlib.Path", "replace", 3),
    "the loop ends": ("asyncio.BaseEventLoop", "shutdown_default_executor", 1),
    "the user's last function": ("", "", 0),
}


def sending(place: str, numbers: list[int]) -> str:
    """Return a program that sends signals at a place of `PLACES`."""
    where, name, call = PLACES[place]
    send = f"[os.kill(os.getpid(), number) for number in {[int(number) for number in numbers]}]"
    if not where:
        return f"import atexit\natexit.register(lambda: {send})"
    return f"""
import pkgutil
place = pkgutil.resolve_name({where!r})
original, count = getattr(place, {name!r}), 0
def replaced(*args, **named):
    global count
    count += 1
    if count == {call}:
        {send}
    return original(*args, **named)
setattr(place, {name!r}, replaced)
"""


@pytest.mark.parametrize("place", PLACES)
def test_signals_while_finishing_change_nothing(tmp_path: Path, files: Files, place: str) -> None:
    files(*range(COUNT), -1)
    with serving(tmp_path) as server:
        for numbers in (
            [signal.SIGINT],
            [signal.SIGTERM],
            [signal.SIGHUP],
            [signal.SIGINT, signal.SIGTERM],
        ):
            outcome = server.run(*options(), before=sending(place, [*numbers]))
            check(tmp_path, outcome, whole=1, codes=set())
            assert (
                "1 failed" in outcome.stderr or len(numbers) > 1
            )  # two signals may end it before the message
            clean(tmp_path)


@pytest.mark.parametrize("place", ["output is synchronised", "output is renamed"])
def test_signals_while_keeping_files_change_nothing(
    tmp_path: Path, files: Files, place: str
) -> None:
    files(*range(1, 1000))
    with serving(tmp_path) as server:
        # The function raises the first interrupt.
        (tmp_path / "keys.py").write_text(
            "def f(n):\n    if n == 4:\n        raise KeyboardInterrupt\n    return n\n",
            encoding="utf-8",
        )
        where = ["--input", "in.jsonl", "--output", "out.jsonl", "--limit", "1"]
        outcome = server.run(
            "keys:f", *where, before=sending(place, [signal.SIGTERM, signal.SIGINT])
        )
        assert outcome.code == 130, outcome
        assert results(tmp_path / "out.jsonl.partial") == [1, 2, 3]
        assert "Traceback" not in outcome.stderr


@pytest.mark.timeout(600)  # on a busy machine; otherwise 20 s
def test_signals_at_random_moments_of_finishing(tmp_path: Path, files: Files) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    files(*range(COUNT), -1)
    spread: list[float] = []
    codes: dict[int, int] = {}
    with serving(tmp_path) as server:
        for attempt in range(210):
            log = tmp_path / "finished"
            log.touch()
            process = server.begin(*options())
            while log.stat().st_size < len(results_as_text(COUNT)) and not has_exited(process):
                time.sleep(0.0002)
            began = time.perf_counter()
            sent: set[int] = set()
            if attempt >= 10:  # the first ones measure the time to finish
                for number in rng.choice(
                    [
                        [signal.SIGINT],
                        [signal.SIGTERM],
                        [signal.SIGINT, signal.SIGINT],
                        [signal.SIGTERM, signal.SIGTERM],
                        [signal.SIGINT, signal.SIGTERM],
                    ]
                ):
                    time.sleep(rng.uniform(0, 0.7 * statistics.median(spread)))
                    os.kill(process, number)
                    sent.add(128 + number)
            outcome = server.end()
            if attempt < 10:
                spread.append(time.perf_counter() - began)
            check(tmp_path, outcome, whole=1, codes=sent)
            codes[outcome.code] = codes.get(outcome.code, 0) + 1
            clean(tmp_path)
    print("exit codes", codes)


def results_as_text(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


def has_exited(process: int) -> bool:
    """Return whether the process has ended and is not reaped."""
    return ") Z " in Path(f"/proc/{process}/stat").read_text(encoding="ascii")


# A second interruption


def test_second_interruption_keeps_results_of_threads(tmp_path: Path, files: Files) -> None:
    files(*range(COUNT))
    # The threads have results that the event loop has not received.
    before = """
import os, signal, threading
from headrace.cli.record_runner import RecordRunner
original = RecordRunner._in_thread
barrier = threading.Barrier(4)
def silent(self, record_task):
    line = original(self, record_task)
    if barrier.wait() == 0:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
RecordRunner._in_thread = silent
"""
    with serving(tmp_path) as server:
        outcome = server.run(*options("traced:in_threads"), before=before)
    assert outcome.code in {130, 143}, outcome
    assert "interrupted: 4 done" in outcome.stderr
    assert results(tmp_path / "out.jsonl.partial") == [0, 1, 2, 3]


# Starting


def signalling_module(*numbers: int, swallowed: bool = False) -> str:
    send = "\n".join(f"os.kill(os.getpid(), {int(number)})" for number in numbers)
    if not swallowed:
        return f"import os\n{send}\n"
    lines = "".join(
        f"try:\n    {line}\nexcept BaseException:\n    pass\n" for line in send.splitlines()
    )
    return f"import os\n{lines}\nos.write(2, b'still here')"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_of_import_is_one_line(
    tmp_path: Path, files: Files, number: signal.Signals
) -> None:
    files(1)
    (tmp_path / "stops.py").write_text(signalling_module(number), encoding="utf-8")
    with serving(tmp_path) as server:
        outcome = server.run(*options("stops:f"))
        assert outcome == Outcome(128 + number, "headrace map: interrupted\n")
        swallowed = signalling_module(number, number, swallowed=True)
        (tmp_path / "stops.py").write_text(swallowed, encoding="utf-8")
        assert server.run(*options("stops:f")) == Outcome(128 + number, "")
    assert listing(tmp_path) == {"in.jsonl", "traced.py", "work.py", "stops.py", "stderr"}


def test_interruption_of_start_is_one_line(tmp_path: Path) -> None:
    # One of the command's own imports is replaced by a module that never finishes importing.
    (tmp_path / "argparse.py").write_text(
        "import os, sys\nos.write(2, b'importing\\n')\nwhile True:\n    pass\n", encoding="utf-8"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        with running(tmp_path, "work:double") as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "importing\n"
            process.send_signal(number)
            assert process.stderr.read() == "headrace map: interrupted\n"
            assert process.wait() == 128 + number


@pytest.mark.parametrize("option", ["--input", "--output", "--errors", "--report"])
def test_interruption_while_opening_a_pipe(tmp_path: Path, files: Files, option: str) -> None:
    files(1)
    os.mkfifo(tmp_path / "pipe")
    # Sends a signal when the main thread blocks while opening a file.
    before = """
import os, signal, sys, threading, time
main = threading.main_thread()
def is_opening():
    with open(f"/proc/self/task/{os.getpid()}/stat") as file:
        state = file.read().rpartition(")")[2].split()[0]
    file = sys._current_frames()[main.ident].f_code.co_filename
    return state == "S" and file.endswith(("output.py", "records.py"))
def stop():
    while not is_opening():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=stop, daemon=True).start()
"""
    with serving(tmp_path) as server:
        outcome = server.run(*options(), option, "pipe", before=before)
    assert outcome == Outcome(143, "headrace map: interrupted\n")
    # No other file is left.
    assert listing(tmp_path) == {"in.jsonl", "traced.py", "work.py", "pipe", "stderr", "finished"}


def test_sighup_is_an_interruption(tmp_path: Path, files: Files) -> None:
    files(*range(1, 1000))
    with running(tmp_path, "work:stuck_after_three") as process:
        wait_for_line(process, "stuck on 5")
        assert "interrupted: 3 done" in interrupt(process, signal.SIGHUP)
    assert results(tmp_path / "out.jsonl.partial") == [1, 2, 3]


def test_nohup_keeps_ignoring_sighup(tmp_path: Path, files: Files) -> None:
    files()
    words = command("work:double", "--every", "0.01", input="-")
    with subprocess.Popen(
        ["nohup", *words],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write("1\n")
        process.stdin.flush()
        wait_for_line(process, "1 done")
        process.send_signal(signal.SIGHUP)
        process.stdin.close()
        rest(process)
        assert process.wait() == 0
    assert results(tmp_path / "out.jsonl") == [2]
