"""The documentation says what is so: its programs run, and its table is that of the code."""

from __future__ import annotations

import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace import PullObj, PushObj

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = [
    pytest.param(program, id=f"{page.name}:{number}")
    for page in PAGES
    for number, program in enumerate(
        re.findall(
            r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
    )
]
OPERATORS = [
    thing
    for name in headrace.__all__
    if inspect.isclass(thing := getattr(headrace, name))
    and issubclass(thing, (PullObj, PushObj))
    and not name.endswith(("1To1Link", "SourceObj", "SinkObj", "PullObj", "PushObj"))
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_documentation_prints_what_it_says(program: str, tmp_path: Path) -> None:
    promised = re.findall(r"print\(.*\)  # (.*)$", program, re.MULTILINE)
    assert promised, "a program that promises nothing proves nothing: say what it prints"
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-W", "error", path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert ran.stdout.splitlines() == promised


def test_the_table_of_operators_is_that_of_the_docstrings() -> None:
    made: Any = runpy.run_path(str(ROOT / "docs" / "operators.py"))
    written = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert written == made["document"](), "run `make docs`"
    for operator in OPERATORS:
        assert f"`{operator.__name__}`" in written, "its module is no room of docs/operators.py"


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_every_operator_says_what_may_be_relied_on(operator: type) -> None:
    for line in ("Law: ", "Order: ", "Bound: ", "Cost: ", "Cancel safety: "):
        assert line in (operator.__doc__ or ""), f"{operator.__name__} does not say its {line}"
