from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import sysconfig
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

CENSUS = Path(__file__).parents[1] / "examples" / "stdlib_census.py"
STDLIB = Path(sysconfig.get_path("stdlib"))


def count(root: Path) -> dict[str, Counter[str]]:
    """What a census must say of each file, found out without headrace and one after the other."""
    found: dict[str, Counter[str]] = {}
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name != "site-packages"]
        for name in files:
            if not name.endswith(".py"):
                continue
            path = Path(folder, name)
            source = path.read_bytes()
            row = found[str(path.relative_to(root))] = Counter(bytes=len(source))
            row["lines"] = sum(1 for _ in io.TextIOWrapper(io.BytesIO(source), encoding="latin-1"))
            try:
                tree = ast.parse(source)
            except (SyntaxError, ValueError):
                row["invalid"] = 1
            else:
                for node in ast.walk(tree):
                    row["functions"] += isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                    row["classes"] += isinstance(node, ast.ClassDef)
                    row["imports"] += isinstance(node, (ast.Import, ast.ImportFrom))
    return found


def census(root: Path, output: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """Runs the example; its records by path, and what it printed."""
    command = [
        sys.executable,
        "-W",
        "error",
        str(CENSUS),
        "--root",
        str(root),
        "--output",
        str(output),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    by_path = {record["path"]: record for record in records}
    assert len(by_path) == len(records)
    return by_path, done.stdout


def compare(root: Path, output: Path) -> str:
    """Holds a census against the count; gives what was printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = count(root)
    records, printed = census(root, output)
    assert records.keys() == expected.keys()
    for path, row in expected.items():
        record = records[path]
        names = ("bytes", "lines", "functions", "classes", "imports")
        assert {name: record[name] for name in names} == {name: row[name] for name in names}, path
        assert ("error" in record) == bool(row["invalid"]), path
    total = sum(expected.values(), Counter({"files": len(expected)}))
    for name in ("files", "invalid", "bytes", "lines", "functions", "classes", "imports"):
        assert f"{name:<10}{total[name]:>14,}\n" in printed
    largest = sorted(expected, key=lambda path: -expected[path]["bytes"])[:10]
    assert all(f"\n{path:<44}{expected[path]['bytes']:>10,}" in printed for path in largest)
    return printed


@pytest.mark.timeout(300)
def test_census_of_the_whole_standard_library_is_exact(tmp_path: Path) -> None:
    printed = compare(STDLIB, tmp_path / "census.jsonl")
    assert "in use: root" in printed


def test_census_counts_files_that_are_no_python(tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "left_out.py").write_text("x = 1\n")
    (tmp_path / "notes.txt").write_text("no module")
    (tmp_path / "empty.py").write_bytes(b"")
    (tmp_path / "zero.py").write_bytes(b"x = '\0'\n")
    (tmp_path / "bad.py").write_text("def :\n")
    (tmp_path / "old.py").write_bytes(
        "# -*- coding: latin-1 -*-\nclass \u00e9: pass\r\nimport a, b".encode("latin-1")
    )
    (tmp_path / "deep" / "deeper" / "good.py").write_text(
        "async def f(): return lambda: 1\nfrom a import b\n"
    )
    printed = compare(tmp_path, tmp_path / "census.jsonl")
    assert "not Python: bad.py: SyntaxError" in printed
    assert "not Python: zero.py" in printed
    assert "left_out" not in printed


def test_census_of_what_is_not_there_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(CENSUS), "--root", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere is no directory" in done.stderr
