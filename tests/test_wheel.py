"""What people install: the wheel, alone in an empty environment without Rust, does what the README says.

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

ROOT = Path(__file__).resolve().parents[1]
README_BLOCKS = re.findall(
    r"^```python\n(.*?)^```$",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)

# The first use of `wheel` builds it; cargo has most of it already, but perhaps for another profile.
pytestmark = pytest.mark.timeout(300)


INTERPRETER = os.environ.get("HEADRACE_PYTHON", sys.executable)
# Where a system has its tools. An installed wheel gets along with that: no compiler of Rust, no version manager.
PATH = os.defpath

SMOKE = Path(__file__).with_name("wheel_smoke.py")


def run(*command: str | Path, cwd: Path, path: str | None = None) -> str:
    environment = os.environ if path is None else {"PATH": path}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tag() -> str:
    """The part of a wheel's name that says which CPython it is for."""
    about = "import sys; print('cp%d%d-cp%d%d%s' % (*sys.version_info[:2] * 2, sys.abiflags))"
    return run(INTERPRETER, "-c", about, cwd=ROOT).strip()


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
    """The interpreter of an environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    run(INTERPRETER, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    # Without an index: a dependency that crept in could not be installed.
    install = ["install", "--quiet", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--isolated", "--python", python, *install, wheel, cwd=folder)
    assert shutil.which("cargo", path=PATH) is None
    assert shutil.which("rustc", path=PATH) is None
    return python


def test_the_wheel_holds_what_it_should(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    # One extension, even where `maturin develop` has left others beside the sources.
    assert len([name for name in names if name.endswith((".so", ".pyd"))]) == 1
    assert {"headrace/__init__.py", "headrace/_core.pyi", "headrace/py.typed"} <= set(names)
    assert "headrace/cli/report/style.css" in names
    assert {"LICENSE-MIT", "LICENSE-APACHE"} <= {Path(name).name for name in names}
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.2f} MB")
    assert size <= 2_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="manylinux is Linux's")
def test_the_wheel_may_be_installed_on_any_linux_that_is_new_enough(wheel: Path) -> None:
    # The builder looked at which symbols of the C library are needed, and found nothing else that a system might lack.
    assert re.search(r"-manylinux_\d+_\d+_\w+\.whl$|-manylinux2014_\w+\.whl$", wheel.name)


def test_the_wheel_works(python: Path, tmp_path: Path) -> None:
    printed = run(python, "-I", "-W", "error", SMOKE, cwd=tmp_path, path=PATH)
    assert printed.endswith(" works\n")


@pytest.mark.parametrize("number", range(len(README_BLOCKS)))
def test_the_examples_of_the_readme_run(python: Path, tmp_path: Path, number: int) -> None:
    program = README_BLOCKS[number]
    printed = run(python, "-I", "-W", "error", "-c", program, cwd=tmp_path, path=PATH)
    # A comment after a `print` says what it prints.
    expected = re.findall(r"^\s*print\(.*\)  # (.*)$", program, re.MULTILINE)
    assert expected
    assert printed.splitlines() == expected


def test_the_command_runs_without_its_extra(python: Path, tmp_path: Path) -> None:
    assert "map" in run(python.with_name("headrace"), "--help", cwd=tmp_path, path=PATH)
    help_ = run(python, "-I", "-m", "headrace", "map", "--help", cwd=tmp_path, path=PATH)
    assert "--limit" in help_
