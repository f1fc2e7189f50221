"""The command `headrace`, tested with real processes, files and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from headrace.cli.output import Output, encode_line
from tests.command import (
    Files,
    assert_one_line_error,
    command,
    interrupt,
    listing,
    rest,
    results,
    run,
    run_and_measure,
    running,
    wait_for_line,
)

# Results


def test_plain_function_maps_every_record(tmp_path: Path, files: Files) -> None:
    files(*range(1000))
    done = run(tmp_path, "work:double", limit=4)
    assert done.returncode == 0
    assert done.stdout == ""
    assert "1,000 done, 0 failed" in done.stderr
    assert results(tmp_path / "out.jsonl") == [2 * n for n in range(1000)]
    assert listing(tmp_path) == {"work.py", "in.jsonl", "out.jsonl"}


def test_output_order(tmp_path: Path, files: Files) -> None:
    files(1, 2, 3, 4, 5)
    assert run(tmp_path, "work:backwards", limit=5).returncode == 0
    assert results(tmp_path / "out.jsonl") == [1, 2, 3, 4, 5]
    assert run(tmp_path, "work:backwards", "--unordered", limit=5).returncode == 0
    assert results(tmp_path / "out.jsonl") == [5, 4, 3, 2, 1]


def test_plain_lines_are_unchanged_records(tmp_path: Path, files: Files) -> None:
    files(text='a\r\n\n {"b"\nlast ü')
    assert run(tmp_path, "work:shout", "--text").returncode == 0
    assert results(tmp_path / "out.jsonl") == ["A!", "!", ' {"B"!', "LAST Ü!"]


def test_blank_lines_and_byte_order_mark_are_skipped(tmp_path: Path, files: Files) -> None:
    files(text='\ufeff1\n\n  \n"\\ud800"\n2')
    assert run(tmp_path, "work:picky").returncode == 0
    assert results(tmp_path / "out.jsonl") == [1, "\ud800", 2]


def test_empty_input_gives_empty_output(tmp_path: Path, files: Files) -> None:
    files()
    assert run(tmp_path, "work:double").returncode == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_function_may_be_a_class_attribute(tmp_path: Path, files: Files) -> None:
    files(1, 2)
    assert run(tmp_path, "work:Group.member").returncode == 0
    assert results(tmp_path / "out.jsonl") == [-1, -2]


def test_limit_many_threads_run_at_once(tmp_path: Path, files: Files) -> None:
    files(*range(16))
    done = run(tmp_path, "work:meet", limit=8)
    assert done.returncode == 0, done.stderr


def test_limit_is_reached_and_never_exceeded(tmp_path: Path, files: Files) -> None:
    files(*range(50))
    assert run(tmp_path, "work:crowd", limit=7).returncode == 0
    assert max(results(tmp_path / "out.jsonl")) == 7


def test_reading_stops_while_the_window_is_full(tmp_path: Path, files: Files) -> None:
    files(*range(1, 101))
    assert run(tmp_path, "work:head_waits", "--window", "4", limit=2).returncode == 0
    first, *others = results(tmp_path / "out.jsonl")
    assert first == [1, 2, 3, 4]
    assert others == list(range(2, 101))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read the peak from")
def test_memory_does_not_grow_with_the_input(tmp_path: Path, files: Files) -> None:
    def peak(count: int) -> int:
        files(*(["x" * 8000] * count))
        done, size = run_and_measure(tmp_path, "work:double", "--window", "64")
        assert done.returncode == 0, done.stderr
        return size

    small, big = peak(200), peak(5_200)
    assert big - small < 10_000_000  # the input grows by 40 MB


def test_minus_is_standard_input_and_output(tmp_path: Path, files: Files) -> None:
    files()
    words = [
        sys.executable,
        "-m",
        "headrace",
        "map",
        "work:double",
        "--input",
        "-",
        "--output",
        "-",
    ]
    done = subprocess.run(
        [*words, "--limit", "2"], cwd=tmp_path, input=b"1\n2", capture_output=True, check=True
    )
    assert done.stdout == b"2\n4\n"
    assert listing(tmp_path) == {"work.py", "in.jsonl"}


def test_pipe_is_processed_incrementally(tmp_path: Path, files: Files) -> None:
    files()
    words = command("work:double", "--every", "0.01", input="-")
    words[words.index("out.jsonl")] = "-"
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("1\n")
        process.stdin.flush()
        assert process.stdout.readline() == "2\n"
        # Without a terminal, progress is plain lines.
        wait_for_line(process, "1 done, 0 failed, 0 running, 0 waiting")
        process.stdin.close()
        assert process.wait() == 0


def test_output_keeps_mode_and_link(tmp_path: Path, files: Files) -> None:
    files(1)
    real = tmp_path / "real.jsonl"
    real.write_text("old\n", encoding="utf-8")
    real.chmod(0o640)
    (tmp_path / "out.jsonl").symlink_to(real)
    assert run(tmp_path, "work:double").returncode == 0
    assert (tmp_path / "out.jsonl").is_symlink()
    assert results(real) == [2]
    assert real.stat().st_mode & 0o777 == 0o640


def test_forced_output_may_be_the_input(tmp_path: Path, files: Files) -> None:
    path = files(*range(500))
    words = command("work:double", "--force")
    words[words.index("out.jsonl")] = "in.jsonl"
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert results(path) == [2 * n for n in range(500)]


# Failed records


def test_failed_record_is_listed_and_has_no_line(tmp_path: Path, files: Files) -> None:
    files(text="1\n\n0\n2\n0\n")
    done = run(tmp_path, "work:inverse")
    assert done.returncode == 1
    message = (
        "2 records failed, the first is record 3: ZeroDivisionError: division by zero (work.py:"
    )
    assert message in done.stderr
    assert "2 done, 2 failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert results(tmp_path / "out.jsonl") == [1.0, 0.5]


def test_equal_errors_are_listed_once_and_all_counted(tmp_path: Path, files: Files) -> None:
    files(*[0] * 2033, "x")
    done = run(tmp_path, "work:inverse", limit=1)
    assert done.returncode == 1
    messages = done.stderr.splitlines()
    assert messages[0].startswith(
        "headrace map: 2,033 records failed, the first is record 1: ZeroDivisionError: division"
    )
    assert messages[1].startswith("headrace map: record 2034 failed: TypeError: unsupported")
    assert len(messages) == 3


@pytest.mark.parametrize("function", ["work:picky", "work:picky_async"])
def test_any_outcome_of_a_function_is_contained(
    tmp_path: Path, files: Files, function: str
) -> None:
    files(1, "cancel", 2, "set", 3, "nan", 4)
    done = run(tmp_path, function)
    assert done.returncode == 1
    assert "record 2 failed: CancelledError" in done.stderr
    assert "record 4 failed: TypeError: Object of type set is not JSON serializable" in done.stderr
    assert (
        "record 6 failed: ValueError: Out of range float values are not JSON compliant"
        in done.stderr
    )
    assert results(tmp_path / "out.jsonl") == [1, 2, 3, 4]


def test_errors_file_has_the_original_records(tmp_path: Path, files: Files) -> None:
    # The exact text, also where Python would format it differently or the function changed the value.
    files(text='[1]\n{"b": 1.50,\t"ü": 1e2}\r\n\n[0]\n"\\ud800"\n')
    done = run(tmp_path, "work:spoil", "--errors", "errors.jsonl", limit=1)
    assert done.returncode == 1
    lines = (tmp_path / "errors.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[1].endswith(', "input": {"b": 1.50,\t"ü": 1e2}}')
    found = [json.loads(line) for line in lines]
    assert [one["record"] for one in found] == [1, 2, 4, 5]
    assert [one["input"] for one in found] == [[1], {"b": 1.5, "ü": 100.0}, [0], "\ud800"]
    assert found[0]["error"] == "RuntimeError"
    assert found[0]["message"] == "spoilt\n\x1b[31m\x00"
    assert found[0]["where"].startswith("work.py:")
    assert all(0 <= one["seconds"] < 10 for one in found)
    # Control characters are replaced.
    assert "the first is record 1: RuntimeError: spoilt ␛[31m␀ (work.py:" in done.stderr
    assert listing(tmp_path) == {"work.py", "in.jsonl", "out.jsonl", "errors.jsonl"}


def test_errors_file_has_plain_lines_as_text(tmp_path: Path, files: Files) -> None:
    files(text='a\n"b\r\nc')
    assert run(tmp_path, "work:spoil", "--text", "--errors", "errors.jsonl").returncode == 1
    assert {one["input"] for one in results(tmp_path / "errors.jsonl")} == {"a", '"b', "c"}


def test_errors_file_is_empty_without_failures(tmp_path: Path, files: Files) -> None:
    files(1, 2)
    (tmp_path / "errors.jsonl").write_text("of an earlier run\n", encoding="utf-8")
    assert run(tmp_path, "work:double", "--errors", "errors.jsonl").returncode == 0
    assert (tmp_path / "errors.jsonl").read_bytes() == b""


def test_error_with_failing_str_is_a_failure(tmp_path: Path, files: Files) -> None:
    files(1, 2)
    done = run(tmp_path, "work:mute", "--errors", "errors.jsonl")
    assert done.returncode == 1
    assert "the first is record 1: MuteError: (its __str__ raised ZeroDivisionError)" in done.stderr
    assert "0 done, 2 failed" in done.stderr
    assert "Traceback" not in done.stderr


# Bad input and options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"function": "work"},
            "the function must be given as MODULE:FUNCTION or FILE.py:FUNCTION, got 'work'",
        ),
        (
            {"function": "no_such_module:f"},
            "cannot import 'no_such_module': ModuleNotFoundError: No module",
        ),
        ({"function": "broken:f"}, "cannot import 'broken': SyntaxError: "),
        ({"function": "fails:f"}, "cannot import 'fails': ZeroDivisionError: division by zero"),
        ({"function": "leaves:f"}, "cannot import 'leaves': SystemExit: 3"),
        ({"function": "work:missing"}, "'work' has no attribute 'missing'"),
        ({"function": "work:Group.missing"}, "'work.Group' has no attribute 'missing'"),
        (
            {"function": "work:not_a_function"},
            "work:not_a_function is not callable; its type is int",
        ),
        ({"function": "work:generate"}, "work:generate is a generator function"),
        ({"--input": "missing.jsonl"}, "cannot read missing.jsonl: No such file or directory"),
        ({"--input": "."}, "cannot read .: Is a directory"),
        (
            {"--output": "missing/out.jsonl"},
            "cannot write missing/out.jsonl: No such file or directory",
        ),
        ({"--output": "."}, "cannot write .: Is a directory"),
        ({"--limit": "0"}, "argument --limit: must be a whole number of at least 1, got '0'"),
        ({"--limit": "-3"}, "argument --limit: must be a whole number of at least 1, got '-3'"),
        ({"--limit": "many"}, "argument --limit: must be a whole number of at least 1, got 'many'"),
        ({"--window": "1"}, "--window must be at least --limit (2), got 1"),
        ({"--every": "nan"}, "argument --every: must be a number of seconds above 0, got 'nan'"),
        ({"--errors": "missing/e"}, "cannot write missing/e: No such file or directory"),
        ({"--report": "missing/r"}, "cannot write missing/r: No such file or directory"),
        ({"--report": "."}, "cannot write .: Is a directory"),
        (
            {"--errors": "out.jsonl"},
            "--output and --errors must be different files, got 'out.jsonl' for both",
        ),
        (
            {"--errors": "./e", "--report": "e"},
            "--errors and --report must be different files, got 'e' for both",
        ),
        (
            {"--output": "-", "--errors": "-"},
            "--output and --errors must be different files, got '-' for both",
        ),
        ({"--report": "in.jsonl"}, "--report would replace the input, 'in.jsonl'"),
        ({"--colour": "red"}, "unrecognized arguments: --colour red"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_command_line_is_a_one_line_error(
    tmp_path: Path, files: Files, change: dict[str, str], message: str
) -> None:
    files(1, 2, 3)
    (tmp_path / "broken.py").write_text("def f(:\n", encoding="utf-8")
    (tmp_path / "fails.py").write_text("1 / 0\n", encoding="utf-8")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    (tmp_path / "out.jsonl").write_text("as it was\n", encoding="utf-8")
    before = listing(tmp_path)
    options = {"--input": "in.jsonl", "--output": "out.jsonl", "--limit": "2"} | change
    function = options.pop("function", "work:double")
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "map", function, *chain.from_iterable(options.items())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert_one_line_error(done, message)
    assert done.stdout == ""
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "as it was\n"
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            b"{oops}",
            "line 58: not JSON: Expecting property name enclosed in double quotes at column 2",
        ),
        (b"[NaN]", "line 58: not JSON: NaN is not a JSON value"),
        (b'"\xff"', "line 58: not UTF-8: invalid start byte at byte 2"),
        (b"[" * 100_000, "line 58: not valid: the JSON is nested too deeply"),
    ],
)
def test_invalid_record_is_reported_with_its_line(
    tmp_path: Path, files: Files, line: bytes, message: str
) -> None:
    path = files()
    path.write_bytes(b"1\n" * 57 + line + b"\n1\n")
    (tmp_path / "out.jsonl").write_text("as it was\n", encoding="utf-8")
    done = run(tmp_path, "work:double")
    assert_one_line_error(done, message)
    assert "57 results are in " in done.stderr
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "as it was\n"
    # Earlier records are finished and kept, and never replace an older partial file.
    assert results(tmp_path / "out.jsonl.partial") == [2] * 57
    assert run(tmp_path, "work:double").returncode == 2
    assert results(tmp_path / "out.jsonl.partial.2") == [2] * 57


def test_no_partial_file_without_results(tmp_path: Path, files: Files) -> None:
    files(text="oops\n")
    assert run(tmp_path, "work:double").returncode == 2
    assert listing(tmp_path) == {"work.py", "in.jsonl"}


def test_full_device_is_a_one_line_error(tmp_path: Path, files: Files) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    files(*range(1000))
    (tmp_path / "out.jsonl").symlink_to("/dev/full")
    done = run(tmp_path, "work:double")
    assert_one_line_error(done, "cannot write out.jsonl: No space left on device")


# Interruptions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_keeps_finished_results(
    tmp_path: Path, files: Files, number: signal.Signals
) -> None:
    files(*range(1, 1001))
    (tmp_path / "out.jsonl").write_text("as it was\n", encoding="utf-8")
    with running(tmp_path, "work:stuck_after_three") as process:
        wait_for_line(process, "stuck on 5")
        message = interrupt(process, number)
    assert "interrupted: 3 done, 0 failed; 3 results are in " in message
    assert "not done: records 4, 5" in message
    assert "Traceback" not in message
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "as it was\n"
    assert results(tmp_path / "out.jsonl.partial") == [1, 2, 3]
    assert listing(tmp_path) == {"work.py", "in.jsonl", "out.jsonl", "out.jsonl.partial"}


def test_results_out_of_order_are_kept(tmp_path: Path, files: Files) -> None:
    files(4, *[1] * 40, 5)
    with running(tmp_path, "work:stuck_after_three") as process:
        wait_for_line(process, "stuck on 5")
        message = interrupt(process)
    assert "not done: records 1, 42, and everything after line 42" in message
    assert results(tmp_path / "out.jsonl.partial") == [1] * 40


def test_interruption_waits_for_threads(tmp_path: Path, files: Files) -> None:
    files(*range(1, 1001))
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with running(tmp_path, "work:slow_thread", limit=1) as process:
        wait_for_line(process, "stuck on 4")
        process.send_signal(signal.SIGINT)
        wait_for_line(process, "stopping: 1 call still running")
        gate.write_bytes(b"go on")
        message = rest(process)
        assert process.wait() == 130
    assert "interrupted: 4 done" in message
    assert results(tmp_path / "out.jsonl.partial") == [1, 2, 3, 4]


def test_second_interruption_abandons_threads(tmp_path: Path, files: Files) -> None:
    files(*range(1, 1001))
    with running(tmp_path, "work:stuck_thread") as process:
        wait_for_line(process, "stuck on 5")
        process.send_signal(signal.SIGINT)
        wait_for_line(process, "stopping: 2 calls still running")
        message = interrupt(process)
    assert "interrupted: 3 done" in message
    assert results(tmp_path / "out.jsonl.partial") == [1, 2, 3]


def test_interruption_does_not_wait_for_input(tmp_path: Path, files: Files) -> None:
    files()
    with running(tmp_path, "work:double", "--every", "0.01", input="-") as process:
        assert process.stdin is not None
        process.stdin.write("1\n")
        process.stdin.flush()
        wait_for_line(process, "1 done")
        assert "interrupted: 1 done" in interrupt(process)
    assert results(tmp_path / "out.jsonl.partial") == [2]


def test_interruption_keeps_failures(tmp_path: Path, files: Files) -> None:
    files(0, *range(1, 1001))
    (tmp_path / "errors.jsonl").write_text("as it was\n", encoding="utf-8")
    with running(tmp_path, "work:stuck_or_fails", "--errors", "errors.jsonl") as process:
        wait_for_line(process, "stuck on 5")
        message = interrupt(process)
    assert "; 3 results are in " in message
    assert "; 1 failure is in " in message
    assert (tmp_path / "errors.jsonl").read_text(encoding="utf-8") == "as it was\n"
    (failure,) = results(tmp_path / "errors.jsonl.partial")
    assert (failure["record"], failure["input"]) == (1, 0)


def test_output_without_commit_is_kept_as_partial(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Output(str(path)) as output:
        output.write(encode_line({"a": 1}))
    assert output.partial is not None
    assert results(output.partial) == [{"a": 1}]
    with Output(str(path)) as output:
        pass
    assert output.partial is None
    assert listing(tmp_path) == {"out.jsonl.partial"}


def test_help_and_version() -> None:
    for words, part in (
        (["--help"], "map"),
        (["map", "--help"], "--unordered"),
        (["--version"], "headrace 0."),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words], capture_output=True, text=True, check=True
        )
        assert part in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "headrace"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
