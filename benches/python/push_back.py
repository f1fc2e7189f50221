"""Run `headrace map` against a local model service that limits, fails and hangs, and print the figures.

make push-back                                three runs of each client, eight minutes
make push-back ARGS="--runs 1 --speed 10"     a look, with a minute of 6 seconds

The service is that of `tests/model_service.py`: 600 requests and 90,000 tokens a minute, a burst of 6 seconds, 50 to 200 ms, 1% of
500s, 0.3% of calls that hang, 429s with whole seconds in `Retry-After`. The client is the SDK of OpenAI, with its own retries off and on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.model_server import ModelServer

if TYPE_CHECKING:
    from tests.model_service import ModelService

PROGRAM = """
import os
from openai import AsyncOpenAI

client = AsyncOpenAI(api_key="sk-example", base_url=os.environ["MODEL_URL"], max_retries=int(os.environ["SDK_RETRIES"]))


async def ask(record):
    messages = [{"role": "user", "content": str(record["number"])}]
    answer = await client.chat.completions.create(model="model", max_tokens=record["tokens"], messages=messages)
    return answer.choices[0].message.content
"""
COMMAND = "--limit 40 --retries 5 --timeout 30"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--speed", type=float, default=1.0, help="scales the time of the service")
    parser.add_argument("--sdk-retries", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--options", default=COMMAND, help=f"of the command; {COMMAND}")
    parser.add_argument("--seconds", action="store_true", help="also print each second")
    options = parser.parse_args()
    for sdk_retries in options.sdk_retries:
        print(f"headrace map {options.options}, AsyncOpenAI(max_retries={sdk_retries})")
        for seed in range(options.runs):
            measure(options, sdk_retries, seed)


def measure(options: argparse.Namespace, sdk_retries: int, seed: int) -> None:
    """Run the command once, and print a line."""
    chance = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as name,
        ModelServer(speed=options.speed, seed=seed) as server,
    ):
        folder = Path(name)
        (folder / "program.py").write_text(PROGRAM)
        records = (
            {"number": number, "tokens": chance.randint(50, 200)}
            for number in range(options.records)
        )
        (folder / "in.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
        started = time.monotonic()
        done = subprocess.run(  # noqa: S603  # the command itself
            [
                *(sys.executable, "-m", "headrace", "map", "program:ask", "--unordered"),
                *("--input", "in.jsonl", "--output", "out.jsonl", "--errors", "errors.jsonl"),
                *options.options.split(),
            ],
            cwd=folder,
            env={**os.environ, "MODEL_URL": server.url, "SDK_RETRIES": str(sdk_retries)},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        output = folder / "out.jsonl"
        found = len(output.read_text().splitlines()) if output.exists() else 0
    service = server.service
    print(f"  seed {seed}: {describe(service, options.records, found)}; {seconds:.1f} s")
    for line in done.stderr.splitlines():
        if not re.search(r"\d done, \d+ failed, \d+ running", line):
            print("   ", line)
    if options.seconds:
        for second, counts in sorted(service.per_second.items()):
            print(f"    {second:4}", dict(counts))


def describe(service: ModelService, records: int, found: int) -> str:
    counts = service.counts
    calls = counts.total()
    return (
        f"{records - found} lost; {calls} requests, {calls / records:.3f} a record; {counts['throttled']} 429s, "
        f"{counts['failed']} 500s, {counts['hung']} hung; {service.share:.1%} of the allowed rate"
    )


if __name__ == "__main__":
    main()
