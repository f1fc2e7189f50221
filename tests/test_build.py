"""`make build` replaces the extension and never overwrites it, which would crash processes that have it mapped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"


@pytest.mark.parametrize(
    ("commands", "code"),
    [
        ("rm -f $file; echo new >$file", 0),
        ("echo new >$file.new; mv $file.new $file", 0),
        ("true", 0),
        ("echo new >$file", 2),
    ],
    ids=["removed", "renamed", "untouched", "overwritten"],
)
def test_overwriting_extension_in_place_is_an_error(
    tmp_path: Path, commands: str, code: int
) -> None:
    make = shutil.which("make")
    if make is None or not MAKEFILE.exists():
        pytest.skip("no make, or no Makefile")
    shutil.copy(MAKEFILE, tmp_path)
    file = tmp_path / "python" / "headrace" / "_core.cpython-311-x86_64-linux-gnu.so"
    file.parent.mkdir(parents=True)
    file.write_text("old\n", encoding="utf-8")
    maturin = tmp_path / ".venv" / "bin" / "maturin"
    maturin.parent.mkdir(parents=True)
    # One second later: a file system may store whole seconds.
    maturin.write_text(
        f"#!/bin/sh\nfile={file}\n{commands}\ntouch -cd '+1 sec' $file\n", encoding="utf-8"
    )
    if commands == "true":
        maturin.write_text("#!/bin/sh\n", encoding="utf-8")
    maturin.chmod(0o755)
    (tmp_path / ".venv" / ".ready-dev").touch()
    done = subprocess.run(
        [make, "build"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert ("was overwritten in place" in done.stderr) == bool(code)
