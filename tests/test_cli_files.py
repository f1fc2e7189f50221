"""Files written by `headrace map`: temporary files, modes, leftovers of killed runs, and special outputs."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import signal
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from headrace.cli.output import Output
from tests.command import Files, command, interrupt, listing, results, run, running, wait_for_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def usual_mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def temporary(folder: Path, name: str = "out.jsonl") -> list[Path]:
    """Return the temporary files of an output."""
    return sorted(folder.glob(f".{name}.*"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Names


def test_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out.jsonl"
    victim.write_bytes(b"mine\n")
    (tmp_path / f".out.jsonl.{os.getpid()}.tmp").symlink_to(victim)
    with Output(str(out)) as output:
        output.write(b"1\n")
        output.commit()
    assert victim.read_bytes() == b"mine\n"
    assert out.read_bytes() == b"1\n"
    assert not out.is_symlink()


def test_existing_temporary_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guessed(_: int) -> str:
        return "0" * 16

    monkeypatch.setattr("secrets.token_hex", guessed)
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine\n")
    (tmp_path / f".out.jsonl.{'0' * 16}.new").symlink_to(victim)
    with pytest.raises(Exception, match=r"cannot write .*out\.jsonl: File exists"):
        Output(str(tmp_path / "out.jsonl"))
    assert victim.read_bytes() == b"mine\n"


def test_outputs_of_one_process_do_not_share_a_file(tmp_path: Path) -> None:
    # Two containers with a shared volume may have equal process ids.
    out = tmp_path / "out.jsonl"
    with Output(str(out)) as one, Output(str(out)) as other:
        one.write(b"1\n")
        other.write(b"2\n")
        one.commit()
        assert out.read_bytes() == b"1\n"
        other.commit()
        assert out.read_bytes() == b"2\n"
    assert listing(tmp_path) == {"out.jsonl"}


def test_partial_files_never_replace_each_other(tmp_path: Path) -> None:
    kept: list[Path] = []

    def keep(line: bytes) -> None:
        with Output(str(tmp_path / "out.jsonl")) as output:
            output.write(line)
            barrier.wait()
        assert output.partial is not None
        kept.append(output.partial)

    lines = [b"%d\n" % number for number in range(8)]
    barrier = threading.Barrier(len(lines))
    threads = [threading.Thread(target=keep, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_bytes() for path in kept) == lines


def test_output_name_may_have_maximum_length(tmp_path: Path) -> None:
    out = tmp_path / ("n" * 255)
    with Output(str(out)) as output:
        output.write(b"1\n")
        output.commit()
    assert out.read_bytes() == b"1\n"


# Modes


@pytest.mark.usefixtures("usual_mask")
def test_temporary_file_is_private(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with Output(str(out)) as output:
        output.write(b"1\n")
        (path,) = temporary(tmp_path)
        assert mode(path) == 0o600
        output.commit()
    assert mode(out) == 0o644


@pytest.mark.usefixtures("usual_mask")
def test_mode_is_copied_from_the_target_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"old\n")
    with Output(str(out)) as output:
        output.write(b"1\n")
        out.chmod(0o600)
        output.commit()
    assert mode(out) == 0o600
    with Output(str(out)) as output:
        output.write(b"1\n")
    assert output.partial is not None
    assert mode(output.partial) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to any group")
@pytest.mark.usefixtures("usual_mask")
def test_group_permissions_need_the_same_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"old\n")
    out.chmod(0o640)
    os.chown(out, -1, 54321)
    with Output(str(out)) as output:
        output.commit()
    assert (out.stat().st_gid, mode(out)) == (54321, 0o640)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with Output(str(out)) as output:
        output.commit()
    assert (out.stat().st_gid, mode(out)) == (os.getegid(), 0o600)


# Renaming


@pytest.mark.parametrize("planted", [False, True])
def test_deleted_temporary_file_is_restored(tmp_path: Path, planted: bool) -> None:
    out = tmp_path / "out.jsonl"
    with Output(str(out)) as output:
        output.write(b"1\n2\n")
        (path,) = temporary(tmp_path)
        path.unlink()
        if planted:
            path.write_bytes(b"forged\n")
        output.commit()
    assert out.read_bytes() == b"1\n2\n"
    # A foreign file is neither published nor deleted.
    assert [path.read_bytes() for path in temporary(tmp_path)] == [b"forged\n"] * planted


def test_directory_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def record(number: int) -> None:
        synced.append("directory" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        fsync(number)

    monkeypatch.setattr(os, "fsync", record)
    with Output(str(tmp_path / "out.jsonl")) as output:
        output.write(b"1\n")
        output.commit()
    assert synced == ["file", "directory"]
    synced.clear()
    with Output(str(tmp_path / "out.jsonl")) as output:
        output.write(b"1\n")
    assert synced == ["file", "directory"]


# A full disk


@pytest.mark.parametrize("most", [100, 10_000])
def test_full_disk_keeps_whole_lines(tmp_path: Path, files: Files, most: int) -> None:
    files(*(["x" * 30] * 2000))

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    done = run(tmp_path, "work:double", preexec_fn=fill)
    assert done.returncode == 2
    kept = results(tmp_path / "out.jsonl.partial")
    assert kept == ["x" * 60] * (most // 63)
    kept_text = "1 result is" if len(kept) == 1 else f"{len(kept):,} results are"
    assert f"cannot write out.jsonl: File too large; {kept_text} in " in done.stderr
    assert listing(tmp_path) == {"work.py", "in.jsonl", "out.jsonl.partial"}


def test_results_are_kept_if_errors_file_is_full(tmp_path: Path, files: Files) -> None:
    files(4, 1, 2, 0)
    (tmp_path / "errors.jsonl").symlink_to("/dev/full")
    done = run(tmp_path, "work:stuck_or_fails", "--errors", "errors.jsonl")
    assert done.returncode == 2, done.stderr
    assert "cannot write errors.jsonl: No space left on device; 2 results are in " in done.stderr
    assert results(tmp_path / "out.jsonl.partial") == [1, 2]


# Killed runs

LEFT = re.compile(
    r"headrace map: a killed run left (?P<path>\S+) \((?P<size>[\d,]+) bytes, (?P<age>.+) old\): (?P<use>.+)\n"
)


def test_next_run_reports_leftovers_of_a_killed_one(tmp_path: Path, files: Files) -> None:
    files(1, 2, 3, 4, 5)
    options = ["--errors", "errors.jsonl", "--report", "report.html"]
    with running(tmp_path, "work:stuck_after_three", *options) as process:
        wait_for_line(process, "stuck on 5")
        process.kill()
    left = [
        path
        for name in ("out.jsonl", "errors.jsonl", "report.html")
        for path in temporary(tmp_path, name)
    ]
    assert len(left) == 3
    assert results(left[0]) == [1, 2, 3]
    # Files with other names, and links, are not leftovers of this output.
    for name in (".out.jsonl.old.0123456789abcdef.tmp", ".out.jsonl.0123.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / f".out.jsonl.{'0' * 16}.tmp").symlink_to("in.jsonl")
    os.utime(left[0], (0, left[0].stat().st_mtime - 3 * 3600))
    for _ in range(2):  # the second run reports it too
        files(1)
        done = run(tmp_path, "work:double", *options)
        assert done.returncode == 0
        found = [match.groupdict() for match in LEFT.finditer(done.stderr)]
        assert [item["path"] for item in found] == [str(path) for path in left]
        assert [item["size"] for item in found] == ["6", "0", "0"]
        assert re.fullmatch(r"3 h \d+ min", found[0]["age"])
        assert found[0]["use"].startswith("rename it to keep its lines")
        assert found[1]["use"] == "delete it"
        assert results(left[0]) == [1, 2, 3]


def test_file_of_a_live_run_is_not_a_leftover(tmp_path: Path, files: Files) -> None:
    files(1, 2, 3, 4, 5)
    with running(tmp_path, "work:stuck_after_three") as process:
        wait_for_line(process, "stuck on 5")
        (path,) = temporary(tmp_path)
        (tmp_path / "in.jsonl").write_text("7\n", encoding="utf-8")
        done = run(tmp_path, "work:double")
        assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
        assert temporary(tmp_path) == [path]
        assert results(tmp_path / "out.jsonl") == [14]
        interrupt(process)
    assert results(tmp_path / "out.jsonl.partial") == [1, 2, 3]
    assert results(tmp_path / "out.jsonl") == [14]


def test_recent_or_locked_files_are_not_leftovers(tmp_path: Path) -> None:
    path = tmp_path / f".out.jsonl.{'0' * 16}.new"
    path.write_bytes(b"")
    with Output(str(tmp_path / "out.jsonl")) as output:
        assert output.find_leftovers() == []
        os.utime(path, (0, path.stat().st_mtime - 120))
        assert [leftover.path for leftover in output.find_leftovers()] == [path]
        # Old but locked.
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert output.find_leftovers() == []


# Special outputs


@pytest.mark.parametrize("output", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_output_may_be_a_path_of_stdout(tmp_path: Path, files: Files, output: str) -> None:
    files(1, 2)
    done = run(tmp_path, "work:double", "--output", output)
    assert (done.returncode, done.stdout) == (0, "2\n4\n")
    assert listing(tmp_path) == {"work.py", "in.jsonl"}


def test_output_may_be_a_fifo_or_dev_null(tmp_path: Path, files: Files) -> None:
    files(1, 2)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with running(tmp_path, "work:double", "--output", "fifo") as process:
        assert fifo.read_bytes() == b"2\n4\n"
        assert process.wait() == 0
    assert fifo.is_fifo()
    assert run(tmp_path, "work:double", "--output", "/dev/null").returncode == 0
    assert listing(tmp_path) == {"work.py", "in.jsonl", "fifo"}


def test_full_stderr_pipe_does_not_block_files(tmp_path: Path, files: Files) -> None:
    files(0, 1)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writes, b"x" * 4096)
    os.set_blocking(writes, True)
    process = subprocess.Popen(
        command("work:inverse", "--report", "report.html", "--every", "1000"),
        cwd=tmp_path,
        stderr=writes,
    )
    os.close(writes)
    try:
        wait = threading.Event()
        while not ((tmp_path / "report.html").exists() or process.poll() is not None):
            wait.wait(0.01)
        assert results(tmp_path / "out.jsonl") == [1.0]
        # Once all files are on disk, a second signal ends the blocked process.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            wait.wait(0.01)
        assert process.returncode == 1
    finally:
        process.kill()
        process.wait()
        os.close(reads)
