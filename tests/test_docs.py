"""The documentation matches the code: its programs run, its tables are current, the tests and laws that it names exist."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.doc_programs import expected_output, programs_of
from tests.model_server import ModelServer
from tests.support import OPERATORS

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


PROGRAMS = [
    pytest.param(program, id=f"{page.relative_to(ROOT)}:{number}")
    for page in DOCUMENTS
    for number, program in enumerate(programs_of(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_prints_its_stated_output(program: str, tmp_path: Path) -> None:
    expected = expected_output(program)
    assert expected, "the program states no output: add comments with what it prints"
    imported = re.findall(r"^(?:from|import) (\w+)", program, re.MULTILINE)
    for module in imported:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    # Not in debug mode: there asyncio logs slow callbacks, and a program may be too slow for the times that it shows.
    debug = ("PYTHONASYNCIODEBUG", "PYTHONMALLOC")
    environment = {name: value for name, value in os.environ.items() if name not in debug}
    with ExitStack() as stack:
        if "openai" in imported:
            # The SDK itself, against a server on this machine.
            server = stack.enter_context(ModelServer(failing=0, hanging=0, speed=10))
            environment |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "a key"}
        completed = subprocess.run(
            [sys.executable, "-W", "error", path],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    # A bar is shown on standard error.
    shown = "" if "progress=True" in program else completed.stderr
    assert (shown, completed.returncode) == ("", 0), completed.stderr
    assert completed.stdout.splitlines() == expected


HOW_TOS = [page for page in PAGES if page.parent.name == "howto" and page.name != "test.md"]


@pytest.mark.parametrize("page", HOW_TOS, ids=lambda page: page.name)
def test_first_program_of_a_how_to_has_a_real_clock(page: Path) -> None:
    # `test_program_prints_its_stated_output` runs it. Only the page about tests begins with a virtual clock.
    first, *_ = programs_of(page.read_text(encoding="utf-8"))
    assert "VirtualClock" not in first


def check_blocks(text: str) -> None:
    """Check that each block of a page is closed and of a tested kind, and that each program is collected."""
    fences = re.findall(r"^.*```.*$", text, re.MULTILINE)
    opened, closed = fences[::2], fences[1::2]
    assert len(opened) == len(closed), f"{opened[-1]} is not closed"
    for opening, closing in zip(opened, closed, strict=True):
        assert opening in ("```python", "```console", "```text"), f"nothing tests {opening}"
        assert closing == "```", f"{opening} is not closed before {closing}"
    assert len(programs_of(text)) == opened.count("```python")


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_are_closed_and_programs_collected(page: Path) -> None:
    check_blocks(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("block", "error"),
    [
        ("```python\nprint(1)  # 1\n", "```python is not closed"),
        ("```python\n1\n\n```python\n2\n```\n```\n", "not closed before ```python"),
        ("- ```python\n  1\n  ```\n", "nothing tests - ```python"),
        ("```py\n1\n```\n", "nothing tests ```py"),
    ],
)
def test_untested_block_is_detected(block: str, error: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(error)):
        check_blocks(block)


def test_operator_table_matches_the_docstrings() -> None:
    script: Any = runpy.run_path(str(ROOT / "docs" / "operators.py"))
    page_text = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert page_text == script["document"](), "run `make docs`"
    for operator in OPERATORS:
        assert f"`{operator.__name__}`" in page_text, "docs/operators.py does not list its module"


@pytest.mark.parametrize("page", ["docs/benchmarks.md", "docs/performance.md"])
def test_measurement_tables_match_the_results(page: str) -> None:
    script: Any = runpy.run_path(str(ROOT / "benches" / "python" / "tables.py"))
    text = (ROOT / page).read_text(encoding="utf-8")
    assert script["MARKED"].search(text)
    assert list((ROOT / "benches" / "results").glob("*.json"))
    assert script["written"](text) == text, (
        "run `python benches/python/tables.py`, which `make bench` does"
    )


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_law_7_docstrings_state_the_guarantees(operator: type) -> None:
    for line in ("Law: ", "Order: ", "Bound: ", "Cost: ", "Cancel safety: "):
        assert line in (operator.__doc__ or ""), (
            f"the docstring of {operator.__name__} has no line {line}"
        )


def _test_names(file: Path) -> set[str]:
    """Return the names of the tests in a Python or Rust file."""
    found = re.findall(
        r"^ *(?:async )?def (test_\w+)\(|^ *#\[test\]\s+(?:[/#].*\s+)*fn (\w+)\(",
        file.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return {name for names in found for name in names if name}


def test_tests_named_in_reliability_exist() -> None:
    page_text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.(?:py|rs))::(\w+)`", page_text)
    assert len(named) > 50
    for path, test in named:
        file = ROOT / path if "/" in path else TESTS / path
        assert test in _test_names(file), f"{path} has no test {test}"
    for path in re.findall(r"`((?:tests|rust)/[\w/]+\.\w+)[:`]", page_text):
        assert (ROOT / path).is_file(), f"{path} does not exist"


def test_tests_of_a_law_carry_its_number() -> None:
    page_text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for law, row in re.findall(r"^\| (\d+) \|(.*)$", page_text, re.MULTILINE):
        for test in re.findall(r"::(test_\w+)", row):
            assert f"law_{law}_" in test, f"`-k law_{law}_` does not run {test}"


def test_every_law_has_tests_and_a_row() -> None:
    laws = re.findall(
        r"^(\d+)\. \*\*", (ROOT / "docs" / "laws.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    page_text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) \|.*::", page_text, re.MULTILINE) == laws
    tests = "".join(file.read_text(encoding="utf-8") for file in TESTS.glob("test_*.py"))
    tested = set(re.findall(r"law_(\d+)_", " ".join(re.findall(r"def (test_\w+)", tests))))
    assert tested == set(laws)


def test_functions_and_files_of_the_paths_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = page[page.index("## The path of an item") : page.index("## Add an operator")]
    files = [
        file
        for folder in ("rust", "python")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".rs", ".py")
    ]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    defined = set(re.findall(r"\b(?:fn|def|struct|enum|class|type|trait) (\w+)", code))
    names = [name for name in re.findall(r"`([^`]+)`", paths) if "=" not in name]
    assert len(names) > 50
    missing = []
    for name in names:
        if "/" in name or name.endswith((".rs", ".py")):
            folder = name.rstrip("/")
            found = (ROOT / folder).exists() or any(
                file.as_posix().endswith(f"/{name}") for file in files
            )
        else:
            found = re.split(r"::|\.", name)[-1] in defined
        if not found:
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_stated_rust_version_is_the_one_in_cargo_toml(page: str) -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    version = cargo["workspace"]["package"]["rust-version"]
    assert f"Rust {version} or newer" in (ROOT / page).read_text(encoding="utf-8")


def test_laws_named_in_the_readme_exist() -> None:
    laws = (ROOT / "docs" / "laws.md").read_text(encoding="utf-8")
    named = re.findall(r"\(\[?law (\d+)\b", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert named, "the README names no laws"
    for law in named:
        assert re.search(rf"^{law}\. \*\*", laws, re.MULTILINE), f"law {law} does not exist"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_existing_pages_and_headings(page: Path) -> None:
    for target, anchor in re.findall(
        r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", _prose(page.read_text(encoding="utf-8"))
    ):
        file = page if not target else page.parent / target
        assert file.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor:
            headings = re.findall(
                r"^#+ (.*)$", _prose(file.read_text(encoding="utf-8")), re.MULTILINE
            )
            assert anchor in map(_anchor, headings), f"{file.name} has no heading #{anchor}"


def _prose(page: str) -> str:
    """Return a page without its programs."""
    return re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)


def _anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub derives it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
