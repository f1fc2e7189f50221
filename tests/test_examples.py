"""The programs in `examples/` give the right results, compared with results computed without headrace."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import struct
import subprocess
import sys
import sysconfig
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
CENSUS = EXAMPLES / "stdlib_census.py"
STDLIB = Path(sysconfig.get_path("stdlib"))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


PICTURE = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(bytes(16 * 49)))
    + _chunk(b"IEND", b"")
)


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_is_short_documented_and_linked(program: Path) -> None:
    source = program.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "it has no docstring that says what it shows"
    lines = [line for line in source.splitlines() if line.strip()]
    assert len(lines) < 80, "the README promises less than 80 lines that are not blank"
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    assert f"(examples/{program.name})" in readme, "the README does not link to it"


def count(root: Path) -> dict[str, Counter[str]]:
    """Return the expected counts of each file, computed sequentially and without headrace."""
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
    """Run the example. Return its records by path, and its output."""
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
    """Check a census against `count`, and return its output."""
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
def test_census_of_the_standard_library_is_exact(tmp_path: Path) -> None:
    printed = compare(STDLIB, tmp_path / "census.jsonl")
    assert "in use: <CapacitySource 'root': " in printed


def test_census_counts_files_that_are_no_python(tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "left_out.py").write_text("x = 1\n")
    (tmp_path / "notes.txt").write_text("no module")
    (tmp_path / "round").symlink_to(tmp_path / "deep")
    (tmp_path / "linked.py").symlink_to(tmp_path / "deep" / "deeper" / "good.py")
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


def test_census_continues_after_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "lost.py").symlink_to(tmp_path / "nowhere")
    records, printed = census(tmp_path, tmp_path / "census.jsonl")
    assert records.keys() == {"good.py"}
    assert re.search(r"^not read: .*lost.py", printed, re.MULTILINE)


def test_census_reports_a_missing_directory(tmp_path: Path) -> None:
    command = [sys.executable, str(CENSUS), "--root", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere is no directory" in done.stderr


@pytest.mark.parametrize(
    ("program", "needs"),
    [
        ("logs", "headrace"),
        ("imports", "headrace"),
        ("identify", "magika"),
        ("progress", "uvicorn"),
    ],
)
def test_example_reports_a_missing_directory(program: str, needs: str, tmp_path: Path) -> None:
    pytest.importorskip(needs, reason=f"examples/{program}.py needs {needs}")
    command = [sys.executable, str(EXAMPLES / f"{program}.py"), "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    by_level = "nowhere is no directory; name one that is there\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", by_level)
    assert not list(tmp_path.iterdir())


def test_outputs_of_examples_are_in_gitignore() -> None:
    ignored = (EXAMPLES.parent / ".gitignore").read_text(encoding="utf-8").splitlines()
    for program in EXAMPLES.glob("*.py"):
        for name in re.findall(r'"(\w+\.jsonl)"', program.read_text(encoding="utf-8")):
            assert f"/{name}" in ignored, f"{program.name} writes {name}"


def run(program: str, *arguments: str | Path, cwd: Path) -> str:
    """Run an example in a folder, with warnings as errors, and return its output."""
    command = [sys.executable, "-W", "error", EXAMPLES / program, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_logs_reach_every_branch(tmp_path: Path) -> None:
    sources = {
        "short.py": b"x = 1\n",
        "long.py": b"\n" * 5001,
        "bad.py": b"# -*- coding: no-such-thing -*-\n",
        "worse.py": b"\xff\n",
        **{f"{number}.py": b"\n" * number for number in range(500)},
    }
    for name, source in sources.items():
        (tmp_path / name).write_bytes(source)
    printed = run("logs.py", tmp_path, cwd=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "logs.jsonl").read_text("utf-8").splitlines()]
    by_level = Counter(line["level"] for line in lines)
    assert by_level == {"INFO": 501, "WARNING": 1, "ERROR": 2}
    messages = {line["message"].split(":")[0]: line for line in lines}
    assert messages.keys() == sources.keys()
    assert messages["499.py"]["message"] == "499.py: 499 lines"
    assert all("thread" in line["thread"] for line in lines)
    on_stderr = {line for line in printed.splitlines() if line.startswith(("WARNING", "ERROR"))}
    assert on_stderr == {
        f"{line['level']:<8}{line['message']}" for line in lines if line["level"] != "INFO"
    }
    counted: Counter[str] = Counter()
    for counts in re.findall(r"lines: (\{.*\})", printed):
        counted.update(ast.literal_eval(counts))
    assert counted == by_level
    assert "504 files were read\n" in printed
    assert printed.endswith("0 lines were dropped\n")


def test_logs_skip_only_packages_below_their_directory(tmp_path: Path) -> None:
    root = tmp_path / "site-packages" / "mine"
    (root / "site-packages").mkdir(parents=True)
    (root / "module.py").touch()
    (root / "site-packages" / "left_out.py").touch()
    printed = run("logs.py", root, cwd=tmp_path)
    assert "1 files were read\n" in printed


def test_imports_agree_with_a_sequential_count(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "site-packages").mkdir(parents=True)
    (folder / "site-packages" / "left_out.py").write_text("import left_out\n")
    (folder / "bad.py").write_text("def :\n")
    (folder / "zero.py").write_bytes(b"x = '\0'\n")
    (folder / "escapes.py").write_text("import re\nre.compile('\\d')\n")
    for number in range(500):
        lines = [
            "import os.path, sys",
            "from . import sibling",
            # Ten modules are imported more than once, so that no tie decides which of them are in the table.
            f"from package{number % 8}.deep import name",
        ]
        (folder / f"{number}.py").write_text("\n".join(lines))
    printed = run("imports.py", folder, cwd=tmp_path)

    expected: Counter[str] = Counter()
    for path in folder.glob("*.py"):
        if path.name not in ("bad.py", "zero.py"):
            for line in path.read_text().splitlines():
                words = line.replace(",", "").split()
                names = words[1:] if words[0] == "import" else words[1:2]
                expected.update(name.partition(".")[0] for name in names if "(" not in line)
    del expected[""]
    table = re.findall(r"^ *(\d+)  (\w+)$", printed, re.MULTILINE)
    assert {name: int(number) for number, name in table} == dict(expected.most_common(10))
    assert "\n501 files were parsed, 2 were not\n" in printed
    assert re.findall(r"^not parsed: (\w+)", printed, re.MULTILINE) == ["SyntaxError"] * 2
    assert re.findall(r"^(\d+) files, \d+ a second", printed, re.MULTILINE) == ["250", "500"]


def test_identify_agrees_with_its_model(tmp_path: Path) -> None:
    pytest.importorskip("magika", reason="the model of examples/identify.py is not installed")
    from magika import Magika

    folder = tmp_path / "files"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "program.txt").write_bytes(Path(__file__).read_bytes())
    (folder / "program.py").write_bytes(Path(__file__).read_bytes())
    (folder / "picture.py").write_bytes(PICTURE)
    (folder / "picture.PNG").write_bytes(PICTURE)
    (folder / "picture").write_bytes(PICTURE)
    (folder / "empty.py").touch()
    (folder / "link.py").symlink_to(folder / "program.py")
    (folder / "site-packages").mkdir()
    (folder / "site-packages" / "left_out.py").write_text("x = 1\n")
    for number in range(100):
        (folder / f"{number}.json").write_text(json.dumps({"number": number, "list": [1, 2, 3]}))
    printed = run("identify.py", folder, cwd=tmp_path)

    model = Magika()
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    files = [path for path in files if path.parent.name != "site-packages"]
    kinds = Counter(model.identify_path(path).output.description for path in files)
    table = re.findall(r"^ *(\d+)  (.+)$", printed, re.MULTILINE)
    assert {description: int(number) for number, description in table} == kinds
    assert f"\n{len(files)} files\n" in printed
    assert re.search(r"^picture.py is PNG \w+.* \(\d+%\)$", printed, re.MULTILINE)
    assert not re.search(r"^(picture.PNG|picture|program.py|empty.py) is", printed, re.MULTILINE)
