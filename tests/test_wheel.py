"""The wheel that users install works as the README says, alone in an empty environment without Rust.

`make wheels` runs this for each CPython of the machine: HEADRACE_WHEELS is the folder of the wheels that it built, and
HEADRACE_PYTHON the interpreter. Without them the wheel is built here, for the interpreter of the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.doc_programs import expected_output, programs_of

ROOT = Path(__file__).resolve().parents[1]
README_BLOCKS = programs_of((ROOT / "README.md").read_text(encoding="utf-8"))

# The first use of `wheel` builds it. Most of it is in cargo's cache, but perhaps for another profile.
pytestmark = pytest.mark.timeout(300)


INTERPRETER = os.environ.get("HEADRACE_PYTHON", sys.executable)
# The system's directories of commands. An installed wheel needs no Rust compiler and no version manager.
PATH = os.defpath

SMOKE = Path(__file__).with_name("wheel_smoke.py")


def run(*command: str | Path, cwd: Path, path: str | None = None) -> str:
    environment = os.environ if path is None else {"PATH": path}
    completed = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, f"{command}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


@pytest.fixture(scope="module")
def tag() -> str:
    """The part of a wheel's name that names its CPython version."""
    code = "import sys; print('cp%d%d-cp%d%d%s' % (*sys.version_info[:2] * 2, sys.abiflags))"
    return run(INTERPRETER, "-c", code, cwd=ROOT).strip()


@pytest.fixture(scope="module")
def wheel(tag: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("HEADRACE_WHEELS") or tmp_path_factory.mktemp("wheel"))
    if "HEADRACE_WHEELS" not in os.environ:
        options = ["--release", "--locked", "--quiet", "--interpreter", INTERPRETER]
        run(sys.executable, "-m", "maturin", "build", *options, "--out", folder, cwd=ROOT)
    (built,) = folder.glob(f"headrace-*-{tag}-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that contains only the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    run(INTERPRETER, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    # Without an index, an unintended dependency could not be installed.
    install = ["install", "--quiet", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--isolated", "--python", python, *install, wheel, cwd=folder)
    assert shutil.which("cargo", path=PATH) is None
    assert shutil.which("rustc", path=PATH) is None
    return python


def test_wheel_has_the_expected_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    # One extension, even where `maturin develop` left others in the source tree.
    assert len([name for name in names if name.endswith((".so", ".pyd"))]) == 1
    assert {"headrace/__init__.py", "headrace/_core.pyi", "headrace/py.typed"} <= set(names)
    assert "headrace/cli/report/style.css" in names
    assert {"LICENSE-MIT", "LICENSE-APACHE"} <= {Path(name).name for name in names}
    with zipfile.ZipFile(wheel) as archive:
        extension = archive.read(next(name for name in names if name.endswith((".so", ".pyd"))))
    assert b".symtab" not in extension, "the symbols are not stripped"
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.2f} MB")
    assert size <= 2_200_000


@pytest.mark.skipif(sys.platform != "linux", reason="manylinux is Linux's")
def test_wheel_is_tagged_manylinux(wheel: Path) -> None:
    # maturin checked which symbols of the C library are needed, and found no other system dependency.
    assert re.search(r"-manylinux_\d+_\d+_\w+\.whl$|-manylinux2014_\w+\.whl$", wheel.name)


def test_wheel_works(python: Path, tmp_path: Path) -> None:
    printed = run(python, "-I", "-W", "error", SMOKE, cwd=tmp_path, path=PATH)
    assert printed.endswith(" works\n")


@pytest.mark.parametrize("number", range(len(README_BLOCKS)))
def test_readme_examples_run(python: Path, tmp_path: Path, number: int) -> None:
    program = README_BLOCKS[number]
    printed = run(python, "-I", "-W", "error", "-c", program, cwd=tmp_path, path=PATH)
    expected = expected_output(program)
    assert expected
    assert printed.splitlines() == expected


def test_command_runs_without_its_extra(python: Path, tmp_path: Path) -> None:
    assert "map" in run(python.with_name("headrace"), "--help", cwd=tmp_path, path=PATH)
    help_ = run(python, "-I", "-m", "headrace", "map", "--help", cwd=tmp_path, path=PATH)
    assert "--limit" in help_
