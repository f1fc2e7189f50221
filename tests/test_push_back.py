"""Model services that limit, fail and hang: pools in virtual time, and `headrace map` with the SDK of OpenAI over sockets."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from importlib.util import find_spec
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Retry, Task
from headrace.task.failure import Verdict
from tests.answers import ANSWERS
from tests.command import command, results
from tests.model_server import ModelServer
from tests.model_service import ModelService
from tests.pool_support import envelopes
from tests.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BY_NAME = {answer.name: answer for answer in ANSWERS}

needs_openai = pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")

# The program of a user, with the SDK's own retries off unless the environment says otherwise.
PROGRAM = """
import os
from openai import AsyncOpenAI

client = AsyncOpenAI(
    api_key="sk-example", base_url=os.environ["MODEL_URL"], max_retries=int(os.environ["SDK_RETRIES"])
)


async def ask(number):
    messages = [{"role": "user", "content": str(number)}]
    answer = await client.chat.completions.create(model="model", max_tokens=120, messages=messages)
    return answer.choices[0].message.content
"""


class Refused(Exception):
    def __init__(self, status: int, delay: float | None) -> None:
        super().__init__(status)
        self.status = status
        self.delay = delay


def verdict(error: Exception) -> Verdict:
    if isinstance(error, Refused) and error.status == 429:
        return Verdict("throttled", error.delay)
    return Verdict("transient")


@pytest.mark.virtual
@pytest.mark.parametrize("seed", [0, 1, 2, 4, 7, 16])
async def test_law_19_nothing_is_lost_and_little_is_called_in_vain(seed: int) -> None:
    """600 records, 40 at once, limits that the pool does not know: the rate is used, and few calls are rejected."""
    clock = asyncio.get_running_loop().time
    service, chance = ModelService(clock, seed=seed), Random(seed)

    async def ask(number: int, tokens: int) -> int:
        await asyncio.sleep(chance.uniform(0.001, 0.003))  # the network
        reply = service.reply(number, tokens)
        await asyncio.sleep(min(reply.seconds, 1e6))
        if reply.status != 200:
            delay = reply.headers.get("retry-after")
            raise Refused(reply.status, None if delay is None else float(delay))
        return number

    capacity = CapacitySource(40, clock=clock, cooldown=True)
    tasks = [Task(ask, number, chance.randint(50, 200)) for number in range(600)]
    retry = Retry(5, classify=verdict, random=Random(seed))
    found = await envelopes(HierarchicalTaskPoolRunner(tasks, capacity, retry=retry, timeout=30))
    assert sorted(envelope.value for envelope in found) == list(range(600)), service.counts
    assert service.calls.total() <= 1.05 * 600, service.counts
    assert service.share >= 0.9, service.per_second


def run_command(
    folder: Path,
    server: ModelServer,
    records: Iterable[Any],
    *options: str,
    sdk_retries: int = 0,
    limit: int = 40,
) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "in.jsonl").write_text(lines, encoding="utf-8")
    changes = {"MODEL_URL": server.url, "SDK_RETRIES": str(sdk_retries), "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        command("program:ask", "--errors", "errors.jsonl", *options, limit=limit),
        cwd=folder,
        env={**os.environ, **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


@needs_openai
@pytest.mark.timeout(180)
@pytest.mark.parametrize("sdk_retries", [0, 2])
def test_command_loses_nothing(tmp_path: Path, sdk_retries: int) -> None:
    """The service runs five times as fast: 50 requests a second, 10 to 40 ms. Its burst is 2 s, and it rejects at least one call.

    The shares of calls that fail and hang are higher, so that there are some among so few.
    """
    rejection = Recorded("openai", "", "", None, "", 429, "retry-after-ms: 200", "{}")
    with ModelServer(
        speed=5,
        burst=2,
        failing=0.03,
        hanging=0.02,
        seed=3,
        script=lambda number: rejection if number == 15 else None,
    ) as server:
        options = ("--retries", "5", "--timeout", "5")
        done = run_command(tmp_path, server, range(150), *options, sdk_retries=sdk_retries)
    counts = server.service.counts
    assert done.returncode == 0, (done.stderr, counts)
    assert results(tmp_path / "out.jsonl") == [str(number) for number in range(150)]
    assert counts["failed"] > 0 < counts["hung"]
    rejected = counts["throttled"] + counts["scripted"]
    if sdk_retries == 0:
        # Wide: on a busy machine, calls that are admitted may time out too, and are then called again.
        assert rejected <= 45, counts
        assert f"{rejected} call{'s were' if rejected > 1 else ' was'} throttled" in done.stderr
        assert "by itself" not in done.stderr


def fails_at_first(calls: int, status: int) -> Any:
    """Return a script that answers that many calls with a status that the SDK repeats."""
    body = json.dumps({"error": {"message": "later", "type": "server_error", "code": None}})
    answer = Recorded("openai", "", "", None, "", status, "retry-after-ms: 1", body)
    return lambda number: answer if number <= calls else None


@needs_openai
@pytest.mark.timeout(180)
def test_retries_of_the_sdk_are_named_once(tmp_path: Path) -> None:
    # Both records run out of the two retries of the SDK, at the same time.
    with ModelServer(speed=10, script=fails_at_first(6, 500)) as server:
        done = run_command(tmp_path, server, range(2), "--retries", "3", sdk_retries=2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("by itself") == 1
    assert "openai repeated a failed call 2 times by itself" in done.stderr
    assert "max_retries=0" in done.stderr
    assert server.service.repeated == 4


@needs_openai
@pytest.mark.timeout(180)
def test_retry_after_too_long_names_the_delay(tmp_path: Path) -> None:
    body = json.dumps({"error": {"message": "Come back tomorrow.", "code": "rate_limit_exceeded"}})
    answer = Recorded("openai", "", "", None, "", 429, "retry-after: 86400", body)
    with ModelServer(speed=10, script=lambda _: answer) as server:
        done = run_command(tmp_path, server, range(2), "--retries", "3")
    assert done.returncode == 1, done.stderr
    assert "ThrottledError: " in done.stderr
    assert "the server requires a delay of 86400 s, above max_cooldown=300" in done.stderr
    found = results(tmp_path / "errors.jsonl")
    # Rejected calls are no attempts.
    assert {(one["attempts"], one["throttled"]) for one in found} == {(0, 1)}
    assert not server.service.repeated


@needs_openai
@pytest.mark.timeout(180)
def test_exhausted_quota_is_not_retried(tmp_path: Path) -> None:
    quota = BY_NAME["openai-quota"]
    with ModelServer(speed=10, script=lambda _: quota) as server:
        done = run_command(tmp_path, server, range(2), "--retries", "3")
    assert done.returncode not in (0, 2), done.stderr
    assert "You exceeded your current quota" in done.stderr
    assert max(server.service.calls.values()) == 1


@needs_openai
@pytest.mark.timeout(180)
def test_retry_after_delays_the_calls_of_all_records(tmp_path: Path) -> None:
    answer = Recorded("openai", "", "", None, "", 429, "retry-after: 2", "{}")
    with ModelServer(speed=10, script=lambda number: answer if number == 1 else None) as server:
        done = run_command(tmp_path, server, range(5), limit=1)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out.jsonl") == [str(number) for number in range(5)]
    # A second of the service is a tenth of one.
    times = sorted(server.service.per_second)
    assert times[0] == 0
    assert times[1] >= 20
    assert server.service.calls.total() == 6
    assert "1 call was throttled" in done.stderr
