"""The documentation says what is so: its programs run, its table is that of the code, the tests it names are there."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support import OPERATORS

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def programs_of(text: str) -> list[str]:
    """The programs of a page, which are whole from fence to fence."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


PROGRAMS = [
    pytest.param(program, id=f"{page.relative_to(ROOT)}:{number}")
    for page in DOCUMENTS
    for number, program in enumerate(programs_of(page.read_text(encoding="utf-8")))
]


def said_to_print(program: str) -> list[str]:
    """What stands in a comment behind a `print`, or, where that is several lines, right below it."""
    said: list[str] = []
    follows = False
    for line in program.splitlines():
        if beside := re.search(r"print\(.*\)  # (.*)$", line):
            said.append(beside[1])
            follows = False
        elif follows and (below := re.fullmatch(r" *# (.*)", line)):
            said.append(below[1])
        else:
            follows = re.fullmatch(r" *print\(.*\)", line) is not None
    return said


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_documentation_prints_what_it_says(program: str, tmp_path: Path) -> None:
    promised = said_to_print(program)
    assert promised, "a program that promises nothing proves nothing: say what it prints"
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    # Not in debug mode, where asyncio tells of what was slow, and which may be too slow for what a program shows.
    debug = ("PYTHONASYNCIODEBUG", "PYTHONMALLOC")
    ran = subprocess.run(
        [sys.executable, "-W", "error", path],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in debug},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert ran.stdout.splitlines() == promised


def check_blocks(text: str) -> None:
    """Every block of a page is closed, of a kind that some test looks at, and collected if it is a program."""
    fences = re.findall(r"^.*```.*$", text, re.MULTILINE)
    opened, closed = fences[::2], fences[1::2]
    assert len(opened) == len(closed), f"{opened[-1]} is not closed"
    for opening, closing in zip(opened, closed, strict=True):
        assert opening in ("```python", "```console", "```text"), f"nothing tests {opening}"
        assert closing == "```", f"{opening} is not closed before {closing}"
    assert len(programs_of(text)) == opened.count("```python")


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_is_closed_and_every_program_collected(page: Path) -> None:
    check_blocks(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ("```python\nprint(1)  # 1\n", "```python is not closed"),
        ("```python\n1\n\n```python\n2\n```\n```\n", "not closed before ```python"),
        ("- ```python\n  1\n  ```\n", "nothing tests - ```python"),
        ("```py\n1\n```\n", "nothing tests ```py"),
    ],
)
def test_a_block_that_no_test_would_see_is_noticed(cut: str, said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        check_blocks(cut)


def test_the_table_of_operators_is_that_of_the_docstrings() -> None:
    made: Any = runpy.run_path(str(ROOT / "docs" / "operators.py"))
    written = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert written == made["document"](), "run `make docs`"
    for operator in OPERATORS:
        assert f"`{operator.__name__}`" in written, "its module is no room of docs/operators.py"


@pytest.mark.parametrize("page", ["docs/benchmarks.md", "docs/performance.md"])
def test_the_tables_of_measurements_are_those_of_the_results(page: str) -> None:
    made: Any = runpy.run_path(str(ROOT / "benches" / "python" / "tables.py"))
    text = (ROOT / page).read_text(encoding="utf-8")
    assert made["MARKED"].search(text)
    assert list((ROOT / "benches" / "results").glob("*.json"))
    assert made["written"](text) == text, (
        "run `python benches/python/tables.py`, which `make bench` does"
    )


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_law_7_every_operator_says_what_may_be_relied_on(operator: type) -> None:
    for line in ("Law: ", "Order: ", "Bound: ", "Cost: ", "Cancel safety: "):
        assert line in (operator.__doc__ or ""), f"{operator.__name__} does not say its {line}"


def _tests_of(file: Path) -> set[str]:
    """The names of the tests in a file of ours, Python or Rust."""
    found = re.findall(
        r"^ *(?:async )?def (test_\w+)\(|^ *#\[test\]\s+(?:[/#].*\s+)*fn (\w+)\(",
        file.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return {name for names in found for name in names if name}


def test_the_tests_that_reliability_names_are_there() -> None:
    written = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.(?:py|rs))::(\w+)`", written)
    assert len(named) > 50
    for path, test in named:
        file = ROOT / path if "/" in path else TESTS / path
        assert test in _tests_of(file), f"{path} has no test {test}"
    for path in re.findall(r"`((?:tests|rust)/[\w/]+\.\w+)[:`]", written):
        assert (ROOT / path).is_file(), f"there is no {path}"


def test_the_tests_that_a_law_names_carry_its_number() -> None:
    written = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for law, row in re.findall(r"^\| (\d+) \|(.*)$", written, re.MULTILINE):
        for test in re.findall(r"::(test_\w+)", row):
            assert f"law_{law}_" in test, f"`-k law_{law}_` does not run {test}"


def test_every_law_has_tests_with_its_number_and_a_row_that_names_some() -> None:
    laws = re.findall(
        r"^(\d+)\. \*\*", (ROOT / "docs" / "laws.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    written = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) \|.*::", written, re.MULTILINE) == laws
    tests = "".join(file.read_text(encoding="utf-8") for file in TESTS.glob("test_*.py"))
    held = set(re.findall(r"law_(\d+)_", " ".join(re.findall(r"def (test_\w+)", tests))))
    assert held == set(laws)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_rust_that_is_asked_for_is_that_of_cargo(page: str) -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    version = cargo["workspace"]["package"]["rust-version"]
    assert f"Rust {version} or newer" in (ROOT / page).read_text(encoding="utf-8")


def test_the_laws_that_the_readme_names_are_there() -> None:
    laws = (ROOT / "docs" / "laws.md").read_text(encoding="utf-8")
    named = re.findall(r"\(\[?law (\d+)\b", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert named, "the claims of the README name their laws"
    for law in named:
        assert re.search(rf"^{law}\. \*\*", laws, re.MULTILINE), f"there is no law {law}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(
        r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", _prose(page.read_text(encoding="utf-8"))
    ):
        file = page if not target else page.parent / target
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            headings = re.findall(
                r"^#+ (.*)$", _prose(file.read_text(encoding="utf-8")), re.MULTILINE
            )
            assert anchor in map(_anchor, headings), f"{file.name} has no heading #{anchor}"


def _prose(page: str) -> str:
    """A page without its programs."""
    return re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)


def _anchor(heading: str) -> str:
    """What a link to a heading says, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
