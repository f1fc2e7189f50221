"""The commands in the documentation work, and its code for other libraries compiles.

`headrace map` and `grep` are run. A `make` command must name existing targets, and a pytest command must collect tests. Commands
in `UNTRIED` are not run, for the reasons given there. Any other command fails its test.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from tests.doc_programs import expected_output, programs_of
from tests.test_docs import DOCUMENTS, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNTRIED = {
    "pip": "builds headrace again, for minutes; tests/test_wheel.py installs it",
    "perf": "a profiler, which may not be installed",
    "py-spy": "a profiler, which may not be installed",
    "kill": "tests/test_cli_explain.py sends the signals",
    "valgrind": "may not be installed, and takes minutes",
    "cargo": "measures for minutes",
    ".venvs/peers-3.13/bin/python": "measures for minutes beside libraries that no test needs",
}


def blocks(page: Path, kind: str) -> list[str]:
    """Return the blocks of this kind of a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


COMMANDS = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")
    for page in DOCUMENTS
    for block in blocks(page, "console")
    for line in block.splitlines()
]


def check_make(words: list[str]) -> None:
    """Check that the Makefile has each target and reads each variable."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if "=" in word:
            name = word.partition("=")[0]
            assert re.search(rf"\$\(({name}\)|or \$\({name}\))", makefile), f"nothing reads {name}"
        else:
            assert re.search(rf"^{word}:.* ## ", makefile, re.MULTILINE), f"no target {word}"


def check_pytest(words: list[str]) -> None:
    """Check that pytest collects at least one test."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    completed = subprocess.run(
        [*command, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert completed.returncode == 0, completed.stdout


FAILED = '{"record": 3, "error": "E", "message": "", "where": "", "attempts": 1, "throttled": 0, "seconds": 1, "input": "%s"}\n'

INPUTS = {".txt": "a\nb\n", ".csv": "url\na\nb\n", ".jsonl": FAILED % "a" + FAILED % "b"}
"""The content of an input by its suffix. The documentation has JSON lines as failed records only."""


def check_map(words: list[str], folder: Path) -> None:
    """Run `headrace map` with a module and an input file of the names in the command."""
    [module, function] = words[1].split(":")
    source = (
        f"async def {function}(record):\n"
        "    return {'url': record['url'] if isinstance(record, dict) else record}\n"
    )
    (folder / f"{module.removesuffix('.py')}.py").write_text(source, encoding="utf-8")
    options = dict(pairwise(words))
    path = folder / options["--input"]
    path.write_text(INPUTS[path.suffix], encoding="utf-8")
    if "--resume" in words:
        first = [word for word in words if word != "--resume"]
        subprocess.run([sys.executable, "-m", "headrace", *first], cwd=folder, check=True)
    completed = subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert completed.returncode == 0, completed.stderr
    written = completed.stdout
    if "--first" not in words:
        output = folder / options["--output"]
        if output.suffix == ".parquet":
            parquet = pytest.importorskip("pyarrow.parquet")
            assert parquet.read_table(output).to_pylist() == [{"url": "a"}, {"url": "b"}]
            return
        written = output.read_text(encoding="utf-8")
    results = [json.loads(line) for line in written.splitlines()]
    if "--number" in words:
        results = [result["result"] for result in results]
    assert results == [{"url": "a"}, {"url": "b"}]


def check_journal(words: list[str], folder: Path) -> None:
    """Run `headrace journal` with a journal of the name in the command."""
    headrace.map(str.upper, ["a", "b"], limit=1, journal=folder / words[1])
    command = [sys.executable, "-m", "headrace", "journal", *words]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    if words[0] == "export":
        assert (folder / words[2]).stat().st_size


@pytest.mark.parametrize("line", COMMANDS)
def test_documented_command_works(line: str, tmp_path: Path) -> None:
    assert line.startswith("$ "), (
        "a command must start with `$ `; describe its output in its comment"
    )
    words = shlex.split(line.removeprefix("$ "), comments=True)
    while "=" in words[0]:
        words.pop(0)
    for word in words:
        if re.fullmatch(r"(tests|examples|benches)/[\w/.]+(::\w+)?", word):
            assert (ROOT / word.partition("::")[0]).exists(), f"{word} does not exist"
    match words:
        case ["make", *rest]:
            check_make(rest)
        case [".venv/bin/python", "-m", "pytest", *rest]:
            check_pytest(rest)
        case [".venv/bin/python", program] if program.startswith("examples/"):
            pass  # tests/test_examples.py and tests/test_examples_web.py run them all
        case ["headrace", "journal", *rest]:
            check_journal(rest, tmp_path)
        case ["headrace", *rest]:
            check_map(rest, tmp_path)
        case ["grep", *_]:
            assert subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
        case [name, *_]:
            assert name in UNTRIED, "the command is neither tested nor listed in UNTRIED"
        case _:
            pytest.fail("no command")


def test_untried_commands_are_in_the_documentation() -> None:
    lines = [shlex.split(str(it.values[0]), comments=True) for it in COMMANDS]
    assert UNTRIED.keys() <= {words[1] for words in lines} | {words[2] for words in lines}


COMING_FROM = sorted((ROOT / "docs" / "coming-from").glob("*.md"))
# The result of asyncio's version, as the program beside it prints it. The other pages need libraries that no test needs.
OUTPUT_OF: dict[str, Callable[[list[Any]], str]] = {
    "asyncio-queue": lambda results: f"{min(results)} to {max(results)}",
    "semaphore-and-gather": lambda results: str(results[2:]),
}


@pytest.mark.parametrize("page", COMING_FROM, ids=lambda page: page.stem)
def test_code_for_other_libraries_matches_ours(page: Path) -> None:
    [other_code] = blocks(page, "text")
    code = compile(other_code, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if page.stem not in OUTPUT_OF:
        return
    own_code = programs_of(page.read_text(encoding="utf-8"))[0]
    names: dict[str, Any] = {"asyncio": asyncio}
    # Both programs call this function.
    [fetch] = [it for it in ast.parse(own_code).body if getattr(it, "name", "") == "fetch"]
    exec(ast.unparse(fetch), names)  # noqa: S102

    async def run() -> None:
        await eval(code, names)  # noqa: S307

    asyncio.run(run())
    assert OUTPUT_OF[page.stem](names["results"]) in expected_output(own_code)
