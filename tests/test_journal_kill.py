"""A journaled program that is killed at random moments, and started again.

`make soak` sets the factor HEADRACE_SOAK, which repeats the kills.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

FACTOR = float(os.environ.get("HEADRACE_SOAK", "1"))
KILLS = int(min(6 * FACTOR, 50))
COUNT = int(min(200 * FACTOR, 2_000))
DRIVER = Path(__file__).with_name("journal_driver.py")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it kills by a signal")


class Driver:
    """The runs of the driver on one journal."""

    def __init__(self, path: Path, mode: str, durability: str, count: int) -> None:
        self.options = {
            "mode": mode,
            "path": str(path),
            "durability": durability,
            "count": count,
        }
        self.runs: list[list[dict[str, Any]]] = []

    def run(self, rng: random.Random, *, kill_after: int | None = None) -> list[dict[str, Any]]:
        """Run it, and kill it once it has written this number of lines. 0 kills it during its start."""
        options = json.dumps({**self.options, "seed": rng.random()})
        lines: list[dict[str, Any]] = []
        with subprocess.Popen(
            [sys.executable, str(DRIVER), options], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            if kill_after == 0:
                # A moment of the start of the interpreter, of the imports, or of the open.
                try:
                    process.wait(rng.uniform(0, 0.6))
                except subprocess.TimeoutExpired:
                    process.kill()
            for line in process.stdout:
                # The last line may have been cut off by the kill.
                if line.endswith("\n"):
                    lines.append(json.loads(line))
                if kill_after and len(lines) == kill_after:
                    process.kill()
        self.runs.append(lines)
        return lines


@pytest.mark.parametrize("durability", ["disk", "process"])
@pytest.mark.parametrize("mode", ["ordered", "unordered", "groups"])
def test_law_18_a_killed_program_pays_once(tmp_path: Path, mode: str, durability: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    driver = Driver(tmp_path / "run.journal", mode, durability, COUNT)
    for _ in range(KILLS):
        driver.run(rng, kill_after=rng.choice([0, rng.randrange(1, 12), rng.randrange(1, COUNT)]))
    last = driver.run(rng)
    assert last[-1] == {"is_complete": True}

    # Each result once.
    results = [line["result"] for line in last if "result" in line]
    expected = [f"done key {number}" for number in range(COUNT)]
    if mode == "ordered":
        assert results == expected
    assert Counter(results) == Counter(expected)

    # Only calls in flight are repeated, and they are named. A runner of a group names those of its own journal by a warning alone.
    begun: set[str] = set()
    delivered: set[str] = set()
    for lines in driver.runs:
        named = {key for line in lines for key in line.get("in_flight", ())}
        warned = " ".join(line["warning"] for line in lines if "warning" in line)
        more = "more" in warned
        for line in lines:
            if (key := line.get("begun")) is None:
                continue
            assert f"done {key}" not in delivered
            if key in begun:
                assert key in named or repr(key) in warned or (mode == "groups" and more)
        if named and any("result" in line for line in lines):
            assert "may be paid twice" in warned
        begun.update(line["begun"] for line in lines if "begun" in line)
        delivered.update(line["result"] for line in lines if "result" in line)

    # At most the calls in flight at each kill are repeated.
    calls = Counter(line["begun"] for lines in driver.runs for line in lines if "begun" in line)
    assert calls.keys() == {f"key {number}" for number in range(COUNT)}
    assert calls.total() - len(calls) <= 4 * KILLS


def test_a_repeated_call_of_a_failed_one_is_named(tmp_path: Path) -> None:
    program = """if True:
        import os, sys
        import headrace
        from headrace import Journal, MapError

        async def call(key):
            if sys.argv[2] == "kills":
                os._exit(9)
            raise ValueError(key)

        with Journal(sys.argv[1], retry_failed=True) as journal:
            print(*journal.in_flight, flush=True)
            try:
                headrace.map(call, ["a"], limit=1, journal=journal)
            except MapError:
                pass
    """

    def run(action: str) -> str:
        command = [sys.executable, "-c", program, str(tmp_path / "a.journal"), action]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout

    assert run("fails").split() == []
    assert run("kills").split() == []
    assert run("fails").split() == ["a"]
    assert run("fails").split() == []
