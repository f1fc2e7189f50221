"""Run other projects' tests on headrace: `run.py FOLDER` runs all of them, `run.py FOLDER SUITE` one.

The tests come from source distributions, which are downloaded into the folder; nothing of them is kept here. This directory
comes first on the path, so that `import janus` finds its replacement.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from suites import SUITES, Suite

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parent


def fetch(suite: Suite, folder: Path) -> None:
    """Download and unpack a suite, unless it exists."""
    if (folder / suite.folder).is_dir():
        return
    wanted = f"{suite.name}=={suite.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", suite.name, "--dest", str(folder), wanted]
    subprocess.run(command, check=True)
    with tarfile.open(folder / f"{suite.folder}.tar.gz") as archive:
        archive.extractall(folder, filter="data")


class Verdicts:
    """Mark the cases that do not apply, and count the outcomes."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.counts = Counter[str]()

    def pytest_sessionstart(self) -> None:
        replace_anyio()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        unused = set(self.suite.excluded)
        for item in items:
            names = _names(item)
            for name in names & self.suite.excluded.keys():
                unused.discard(name)
                why = self.suite.excluded[name]
                runs = name not in self.suite.not_run
                item.add_marker(pytest.mark.xfail(reason=why, strict=True, run=runs))
        if unused:
            raise pytest.UsageError(f"no case of {self.suite.name} is called {sorted(unused)}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.counts["failed"] += 1
        elif report.skipped:
            self.counts["excluded" if hasattr(report, "wasxfail") else "skipped"] += 1
        elif report.when == "call":
            self.counts["passed"] += 1


def _names(item: pytest.Item) -> set[str]:
    case = getattr(item, "originalname", item.name)
    kind = getattr(item, "cls", None)
    return {case} if kind is None else {case, f"{kind.__name__}.{case}"}


def replace_anyio() -> None:
    """Replace a part of anyio, whose tests import the rest of it too."""
    import anyio

    import limits

    for name in limits.__all__:
        setattr(anyio, name, getattr(limits, name))
    # The tests of culsans check whether every operation yields to the event loop. None of ours does.
    aiologic, lowlevel = ModuleType("aiologic"), ModuleType("aiologic.lowlevel")
    lowlevel.async_checkpoint_enabled = lambda: False  # type: ignore[attr-defined]
    sys.modules |= {"aiologic": aiologic, "aiologic.lowlevel": lowlevel}


def run_one(suite: Suite, folder: Path) -> int:
    """Run a suite and write the outcomes of its cases to a file."""
    verdicts = Verdicts(suite)
    os.chdir(folder / suite.folder)
    options = ["-c", os.devnull, "--rootdir", ".", "-q", "-rfEX", "--tb=short", "--timeout=60"]
    options += ["-W", "error", "-p", "no:cacheprovider", *suite.options]
    code = pytest.main([*options, *suite.select], plugins=[verdicts])
    (folder / f"{suite.name}.json").write_text(json.dumps(verdicts.counts))
    return int(code)


def run_all(suites: Iterable[Suite], folder: Path) -> int:
    """Run each suite in its own process, and print how many cases pass."""
    summaries, failed = [], False
    total = Counter[str]()
    for suite in suites:
        fetch(suite, folder)
        print(f"== {suite.name} {suite.version}", flush=True)
        command = [sys.executable, __file__, str(folder), suite.name]
        failed |= subprocess.run(command, check=False).returncode != 0
        counts = Counter[str](json.loads((folder / f"{suite.name}.json").read_text()))
        total += counts
        summaries.append(f"{suite.name} {suite.version}: {_summarize(counts)}")
    print(*summaries, f"all: {_summarize(total)}", sep="\n")
    return int(failed)


def _summarize(counts: Counter[str]) -> str:
    line = f"{counts['passed']} of {counts.total() - counts['skipped']} cases pass"
    line += f", {counts['excluded']} do not apply" * bool(counts["excluded"])
    line += f", {counts['failed']} FAIL" * bool(counts["failed"])
    return line


def main() -> int:
    """Run the suites that the command line names."""
    folder = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        return run_one(SUITES[sys.argv[2]], folder)
    folder.mkdir(parents=True, exist_ok=True)
    return run_all(SUITES.values(), folder)


if __name__ == "__main__":
    sys.exit(main())
