"""The commands in the documentation do something, and what it says of other libraries' code is code.

Run for real are `headrace map` and `grep`; of `make` it is seen that it has the target, of pytest that it finds a test. Not
run are those in `UNTRIED`, for the reasons there, and a new command must be one of all these.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.test_docs import DOCUMENTS, ROOT, programs_of, said_to_print

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNTRIED = {
    "pip": "builds headrace anew, for minutes; tests/test_wheel.py installs it",
    "perf": "a profiler, which is not everywhere",
    "py-spy": "a profiler, which is not everywhere",
    "valgrind": "is not everywhere, and takes minutes",
    "cargo": "measures for minutes",
    ".venvs/peers-3.13/bin/python": "measures for minutes beside libraries that no test needs",
}


def blocks(page: Path, kind: str) -> list[str]:
    """The blocks of a page that are no programs."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


COMMANDS = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")
    for page in DOCUMENTS
    for block in blocks(page, "console")
    for line in block.splitlines()
]


def made(words: list[str]) -> None:
    """Every target is one of the Makefile, which reads every variable that is set."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if "=" in word:
            name = word.partition("=")[0]
            assert re.search(rf"\$\(({name}\)|or \$\({name}\))", makefile), f"nothing reads {name}"
        else:
            assert re.search(rf"^{word}:.* ## ", makefile, re.MULTILINE), f"no target {word}"


def finds_tests(words: list[str]) -> None:
    """pytest collects something."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stdout


def maps(words: list[str], folder: Path) -> None:
    """`headrace map` does it, with a module and an input of these names."""
    [module, function] = words[1].split(":")
    source = f"async def {function}(url):\n    return {{'url': url}}\n"
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    named = {name: words[words.index(name) + 1] for name in ("--input", "--output")}
    (folder / named["--input"]).write_text("a\nb\n", encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    written = (folder / named["--output"]).read_text(encoding="utf-8")
    assert [json.loads(line) for line in written.splitlines()] == [{"url": "a"}, {"url": "b"}]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_documentation_does_something(line: str, tmp_path: Path) -> None:
    assert line.startswith("$ "), "say what a command prints in its comment"
    words = shlex.split(line.removeprefix("$ "), comments=True)
    while "=" in words[0]:
        words.pop(0)
    for word in words:
        if re.fullmatch(r"(tests|examples|benches)/[\w/.]+(::\w+)?", word):
            assert (ROOT / word.partition("::")[0]).exists(), f"there is no {word}"
    match words:
        case ["make", *rest]:
            made(rest)
        case [".venv/bin/python", "-m", "pytest", *rest]:
            finds_tests(rest)
        case [".venv/bin/python", program] if program.startswith("examples/"):
            pass  # tests/test_examples.py and tests/test_examples_web.py run them all
        case ["headrace", *rest]:
            maps(rest, tmp_path)
        case ["grep", *_]:
            assert subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
        case [name, *_]:
            assert name in UNTRIED, "neither tried nor said to be of a kind that is not"
        case _:
            pytest.fail("no command")


def test_what_is_said_to_be_untried_is_there() -> None:
    lines = [shlex.split(str(it.values[0]), comments=True) for it in COMMANDS]
    assert UNTRIED.keys() <= {words[1] for words in lines} | {words[2] for words in lines}


OTHERS = sorted((ROOT / "docs" / "coming-from").glob("*.md"))
# What asyncio's way must come to, in the words of the program beside it. The other pages need libraries that no test needs.
SHOWN: dict[str, Callable[[list[Any]], str]] = {
    "asyncio-queue": lambda results: f"{min(results)} to {max(results)}",
    "semaphore-and-gather": lambda results: str(results[2:]),
}


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.stem)
def test_code_of_others_is_code_and_does_the_same_where_it_needs_no_library(page: Path) -> None:
    [there] = blocks(page, "text")
    code = compile(there, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if page.stem not in SHOWN:
        return
    here = programs_of(page.read_text(encoding="utf-8"))[0]
    names: dict[str, Any] = {"asyncio": asyncio}
    # What both call.
    [fetch] = [it for it in ast.parse(here).body if getattr(it, "name", "") == "fetch"]
    exec(ast.unparse(fetch), names)  # noqa: S102

    async def run() -> None:
        await eval(code, names)  # noqa: S307

    asyncio.run(run())
    assert SHOWN[page.stem](names["results"]) in said_to_print(here)
