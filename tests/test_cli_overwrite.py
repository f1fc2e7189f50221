"""`headrace map` replaces its input only with `--force`."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.command import Files, assert_one_line_error, command, files_in, listing, results, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return files_in(tmp_path)


@pytest.mark.parametrize("option", ["--output", "--errors"])
@pytest.mark.parametrize(
    "name", ["in.jsonl", "./in.jsonl", "link.jsonl", "hard.jsonl", "d/../in.jsonl"]
)
def test_input_is_not_replaced(tmp_path: Path, files: Files, option: str, name: str) -> None:
    path = files(1, 2)
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    os.link(path, tmp_path / "hard.jsonl")
    (tmp_path / "d").mkdir()
    before = listing(tmp_path)
    done = run(tmp_path, "work:double", option, name)
    message = f"{option} would replace the input, {name!r}; name another file, or add --force"
    assert_one_line_error(done, message)
    assert results(path) == [1, 2]
    assert listing(tmp_path) == before
    assert run(tmp_path, "work:double", option, name, "--force").returncode == 0


def test_redirected_input_is_not_replaced(tmp_path: Path, files: Files) -> None:
    path = files(1, 2)
    with path.open() as file:
        done = subprocess.run(
            command("work:double", "--output", "in.jsonl", input="-"),
            cwd=tmp_path,
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
        )
    assert_one_line_error(done, "--output would replace the input, 'in.jsonl'")
    assert results(path) == [1, 2]


def test_input_is_not_appended_to(tmp_path: Path, files: Files) -> None:
    # The run would read its own results for ever.
    path = files(1, 2)
    with path.open("a") as file:
        done = subprocess.run(
            command("work:double", "--output", "-", "--force"),
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert_one_line_error(done, "standard output is the input; write to another file")
    assert results(path) == [1, 2]
