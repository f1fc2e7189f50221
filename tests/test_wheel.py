"""What people install: the wheel, alone in an empty environment, does what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
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


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--release", "--locked", "--quiet", "--interpreter", sys.executable]
    run(sys.executable, "-m", "maturin", "build", *options, "--out", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    # Without an index: a dependency that crept in could not be installed.
    install = ["install", "--quiet", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--isolated", "--python", python, *install, wheel, cwd=folder)
    return python


def test_the_wheel_holds_what_it_should(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{tag}-" in wheel.name
    # One extension, even where `maturin develop` has left others beside the sources.
    assert len([name for name in names if name.endswith((".so", ".pyd"))]) == 1
    assert {"headrace/__init__.py", "headrace/_core.pyi", "headrace/py.typed"} <= set(names)
    assert "headrace/cli/report/style.css" in names
    assert {"LICENSE-MIT", "LICENSE-APACHE"} <= {Path(name).name for name in names}
    assert wheel.stat().st_size <= 2 * 1024 * 1024


@pytest.mark.parametrize("number", range(len(README_BLOCKS)))
def test_the_examples_of_the_readme_run(python: Path, tmp_path: Path, number: int) -> None:
    program = README_BLOCKS[number]
    printed = run(python, "-I", "-W", "error", "-c", program, cwd=tmp_path)
    # A comment after a `print` says what it prints.
    expected = re.findall(r"^\s*print\(.*\)  # (.*)$", program, re.MULTILINE)
    assert expected
    assert printed.splitlines() == expected


def test_the_command_runs_without_its_extra(python: Path, tmp_path: Path) -> None:
    assert "map" in run(python.with_name("headrace"), "--help", cwd=tmp_path)
    assert "--limit" in run(python, "-I", "-m", "headrace", "map", "--help", cwd=tmp_path)
