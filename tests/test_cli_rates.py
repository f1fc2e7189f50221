"""`headrace map --rate`, `--tokens` and `--weight`, and the parsers of option values."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import AdaptiveLimit, CapacitySource, Rate
from headrace.cli.arguments import (
    most_calls,
    parse_count,
    parse_limit,
    parse_natural,
    parse_rate,
    parse_seconds,
    parse_size,
    parse_token_rate,
    parse_weight,
)
from headrace.cli.groups import Groups
from headrace.cli.run_options import RunOptions
from headrace.task import Task
from tests.command import Files, assert_one_line_error, no_limits, results, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


# Option values


@pytest.mark.parametrize(
    ("text", "amount", "per"),
    [
        ("500/m", 500, 60),
        ("10/s", 10, 1),
        ("0.5/s", 1, 2),
        (".5/s", 1, 2),
        ("0.9/m", 1, 60 / 0.9),
        ("1/d", 1, 86_400),
        ("0.01/d", 1, 8_640_000),
        ("1e3/h", 1000, 3600),
        ("90000/d", 90_000, 86_400),
        ("1000000000/s", 1_000_000_000, 1),
    ],
)
def test_parse_rate(text: str, amount: float, per: float) -> None:
    assert parse_rate(text) == Rate(amount, per)


@pytest.mark.parametrize(
    ("text", "value", "amount"),
    [("acme=3", "acme", 3), ("a=b=0.5", "a=b", 0.5), ("=2", "", 2), ("null=1e3", "null", 1000)],
)
def test_parse_weight(text: str, value: str, amount: float) -> None:
    assert parse_weight(text) == (value, amount)


@pytest.mark.parametrize(
    ("text", "most"),
    [("1", 1), ("4096", 4096), ("100K", 102_400), ("64m", 1 << 26), ("1024G", 1 << 40)],
)
def test_parse_size(text: str, most: int) -> None:
    assert parse_size(text) == most


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (
            parse_rate,
            [
                *(
                    "",
                    "500",
                    "/m",
                    "500/",
                    "500/min",
                    "500/M",
                    "5/s/s",
                    "x/s",
                    "-5/s",
                    "0/s",
                    "nan/s",
                ),
                *("inf/s", "5 /s", " 5/s", "5/ s", "1_0/s", "1e10/s", "1e999/s", "٣/s"),
                *("1e-300/s", "1e-310/d", "0.001/d"),
            ],
        ),
        (
            parse_weight,
            ["", "acme", "acme=", "acme=0", "acme=-1", "acme=nan", "acme=1e7", "a=1e-4"],
        ),
        (
            parse_count,
            ["", "0", "-1", "1.5", "1e3", "+1", " 1", "1_0", "٣", "1000000001", "9" * 5000],
        ),
        (parse_natural, ["", "-1", "1.5", "1000000001", "9" * 5000]),
        (
            parse_size,
            ["", "0", "-1", "K", "0M", "1.5M", "64MB", "1 K", "٣M", "1025G", "1T", "9" * 5000],
        ),
        (parse_seconds, ["", "0", "-1", "nan", "inf", "1_0", " 1", "1 ", "0x1", "٣", "1e999"]),
    ],
)
def test_invalid_values_are_refused(kind: Callable[[str], Any], texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            kind(text)
        message = str(caught.value)
        assert message.startswith("must be ")
        assert len(message) < 6000
        if len(text) < 40:
            assert f"got {text!r}" in message


@pytest.mark.parametrize("text", ["0.5/s", "0.9/m", "0.01/d", "1/s", "1.5/h"])
async def test_every_rate_grants_a_call(text: str) -> None:
    some = make_options(rate=parse_rate(text), tokens="n", token_rate=parse_rate(text))
    capacity = some.capacity()
    cost: Any = some.cost(1)
    lease = capacity.acquire_nowait(cost)
    assert lease is not None
    with lease:
        assert capacity.acquire_nowait(cost) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [("0.5/s", "1 in 2.00 s"), ("0.01/h", "1 in 100 h 0 min"), ("1.5/m", "1.5/m")],
)
def test_rate_is_formatted(text: str, words: str) -> None:
    assert ("rate", words) in make_options(rate=parse_rate(text)).describe()


def make_options(**given: Any) -> RunOptions:
    defaults: dict[str, Any] = {
        "rate": None,
        "tokens": None,
        "token_rate": None,
        "retries": 0,
        "cooldown": True,
        "timeout": None,
    }
    arguments_given: dict[str, Any] = {"limit": 3, **defaults, **given}
    return RunOptions(**arguments_given)


def test_cost_of_a_call() -> None:
    assert make_options().count_tokens("anything") == 0
    assert make_options().cost(0) == 1
    assert make_options(rate=Rate(500)).cost(0) == {"slots": 1, "calls": 1}
    both = make_options(rate=Rate(500), tokens="n", token_rate=Rate(1000))
    assert both.count_tokens({"n": 2.5}) == 2.5
    assert both.cost(2.5) == {"slots": 1, "calls": 1, "tokens": 2.5}
    # A cost of 0 is left out.
    assert both.cost(0) == {"slots": 1, "calls": 1}
    assert make_options().capacity().limit == 3
    assert both.capacity().limit == {
        "slots": 3,
        "calls": Rate(500),
        "tokens": Rate(1000),
    }


def test_rate_may_follow_the_server() -> None:
    options = make_options(rate=parse_rate("auto"))
    assert options.rates() == {"calls": Rate.auto()}
    assert options.capacity().limit == {"slots": 3, "calls": Rate(60)}
    assert options.cost(0) == {"slots": 1, "calls": 1}
    assert ("rate", "auto") in options.describe()
    # The rate of the report would be a line that the calls do not follow.
    assert options.rate_series() == []
    with pytest.raises(argparse.ArgumentTypeError, match="`auto` is for --rate alone"):
        parse_token_rate("auto")
    assert parse_token_rate("90000/m") == Rate(90_000)


def test_limit_may_follow_the_server() -> None:
    limit = parse_limit("auto")
    assert limit == AdaptiveLimit(10, 1, 1000)
    assert (parse_limit("7"), most_calls(7), most_calls(limit)) == (7, 7, 1000)
    for text in ("0", "automatic", "AUTO", ""):
        with pytest.raises(
            argparse.ArgumentTypeError, match=r"must be a whole number .*; or `auto`"
        ):
            parse_limit(text)
    options = make_options(limit=limit, rate=Rate(500))
    assert options.capacity().limit == {"slots": 10, "calls": Rate(500)}
    assert make_options(limit=limit).capacity().limit == 10
    assert options.describe()[0] == ("limit", "auto, at most 1,000")
    assert make_options().describe()[0] == ("limit", "3")


# Groups


@pytest.mark.virtual
@pytest.mark.parametrize("limit", [4, 20])
async def test_groups_share_by_weight(limit: int) -> None:
    loop = asyncio.get_running_loop()
    root, done = CapacitySource(limit, clock=loop.time), Counter[str]()

    async def work(name: str) -> None:
        await asyncio.sleep(1)
        done[name] += 1
        if done.total() == 400:
            # Both groups have had tasks until now.
            assert done["heavy"] == pytest.approx(300, abs=2 * limit)

    async def tasks() -> AsyncIterator[tuple[str, Task]]:
        for _ in range(350):
            for name in ("light", "heavy"):
                yield name, Task(work, name)

    await Groups(root, limit, 10_000, no_limits(), {}, {"heavy": 3}).run(tasks())
    assert done == {"light": 350, "heavy": 350}


# The command


def test_calls_do_not_exceed_the_rate(tmp_path: Path, files: Files) -> None:
    files(*range(10))
    done = run(tmp_path, "work:moment", "--rate", "300/m", "--report", "report.html", limit=20)
    assert done.returncode == 0, done.stderr
    moments = sorted(results(tmp_path / "out.jsonl"))
    # One call in 0.2 s. A busy machine may start the first one late.
    assert moments[9] - moments[0] >= 1.6
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "calls started: " in page
    assert "10 in total" in page
    assert "300/m" in page


@pytest.mark.parametrize("group", [[], ["--group-by", "group"]])
def test_limit_auto_follows_the_server(tmp_path: Path, files: Files, group: list[str]) -> None:
    files(*({"group": number % 2} for number in range(60)))
    options = ["--report", "report.html", *group]
    done = run(tmp_path, "work:at_most_four", *options, limit="auto")
    assert done.returncode == 0, done.stderr
    # Ten calls start at once. Then the limit falls.
    refused = results(tmp_path / "out.jsonl")
    assert len(refused) == 60
    assert 6 <= max(refused) <= 30
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "auto, at most 1,000" in page


@pytest.mark.parametrize("group", [[], ["--group-by", "group"]])
def test_tokens_do_not_exceed_their_rate(tmp_path: Path, files: Files, group: list[str]) -> None:
    files(*({"n": 250, "group": number % 2} for number in range(8)))
    options = ["--tokens", "n", "--token-rate", "1000/s", *group]
    done = run(tmp_path, "work:moment", *options, limit=20)
    assert done.returncode == 0, done.stderr
    moments = sorted(results(tmp_path / "out.jsonl"))
    # One call in 0.25 s over both groups.
    assert moments[7] - moments[0] >= 1.6


def test_record_without_valid_tokens_fails(tmp_path: Path, files: Files) -> None:
    files({"n": 5}, {}, {"n": -1}, {"n": "5"}, {"n": True}, 7, {"n": 1001}, {"n": 1000})
    done = run(tmp_path, "work:picky", "--tokens", "n", "--token-rate", "1000/s")
    assert done.returncode == 1
    for message in (
        "record 2 failed: ValueError: the record has no field 'n'",
        "record 3 failed: ValueError: the field 'n' must be a number of tokens of at least 0, got -1",
        "record 4 failed: ValueError: the field 'n' must be a number of tokens of at least 0, got '5'",
        "record 5 failed: ValueError: the field 'n' must be a number of tokens of at least 0, got True",
        "record 6 failed: ValueError: the record is not a JSON object, so it has no field 'n'",
        "record 7 failed: ValueError: a cost of 1001 tokens can never be granted",
        "2 done, 6 failed",
    ):
        assert message in done.stderr, (message, done.stderr)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "fast"], "argument --rate: must be a number above 0 per s(econd)"),
        (["--tokens", "n"], "--tokens needs --token-rate"),
        (["--token-rate", "5/s"], "--token-rate needs --tokens"),
        (["--token-rate", "5"], "argument --token-rate: must be a number above 0"),
        (["--weight", "a=1"], "--weight needs --group-by"),
        (
            ["--group-by", "f", "--weight", "a=1", "--weight", "a=2"],
            "--weight must be given at most once per value, got 'a' twice",
        ),
        (["--group-by", "f", "--weight", "a"], "argument --weight: must be VALUE=WEIGHT"),
        (
            ["--tokens", "n", "--token-rate", "5/s", "--text"],
            "--tokens needs records with fields, got 'n' with plain lines",
        ),
        (["--retries", "9999999999"], "argument --retries: must be a whole number from 0 to"),
    ],
)
def test_bad_options_are_a_usage_error(
    tmp_path: Path, files: Files, options: list[str], message: str
) -> None:
    files(1)
    done = run(tmp_path, "work:double", *options)
    assert_one_line_error(done, message)
