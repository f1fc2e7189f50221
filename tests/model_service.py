"""`ModelService`: decides how a model service under limits answers each call. `tests/model_server.py` puts it behind sockets.

Its limits are requests and tokens a minute, each a bucket that holds a few seconds of its rate. A call above a limit gets a 429 with a
delay in whole seconds. Some calls fail, and some are never answered. `speed` scales time: at 10, its minute takes 6 seconds.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from tests.recorded import Recorded


@dataclass(frozen=True)
class Reply:
    """An answer, to be sent after some seconds; never, if these are infinite."""

    status: int
    seconds: float
    body: dict[str, Any] | str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass
class Bucket:
    """An amount that grows at a rate, up to a burst."""

    name: str
    rate: float
    burst: float
    at: float
    used: float = 0.0
    """The sum of all amounts taken."""

    def __post_init__(self) -> None:
        self.level = self.burst

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until it holds an amount."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        # Not a rounding error.
        return max(0.0, amount - self.level - 1e-9) / self.rate

    def take(self, amount: float) -> None:
        self.level -= amount
        self.used += amount


class ModelService:
    """Answers calls, and counts the answers.

    Args:
        clock: Returns the time in seconds.
        requests: The requests a minute.
        tokens: The tokens a minute.
        burst: The seconds of a rate that its bucket holds.
        latency: The least and the greatest seconds of a call.
        failing: The share of the admitted calls that fail with a 500.
        hanging: The share of the admitted calls that are never answered.
        speed: The factor by which the rates are higher and the times shorter.
        seed: The seed of the latencies and of the calls that fail or hang.
        script: Returns the recorded answer to the call with this number, from 1; None for the regular one.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        requests: float = 600,
        tokens: float = 90_000,
        burst: float = 6.0,
        latency: tuple[float, float] = (0.05, 0.2),
        failing: float = 0.01,
        hanging: float = 0.003,
        speed: float = 1.0,
        seed: int = 0,
        script: Callable[[int], Recorded | None] | None = None,
    ) -> None:
        self._clock = clock
        self._speed = speed
        self._latency = latency
        self._failing = failing
        self._hanging = hanging
        self._random = Random(seed)
        self._script = script
        self._first = now = clock()
        self._buckets = [
            Bucket(name, amount / 60 * speed, amount / 60 * burst, now)
            for name, amount in (("requests", requests), ("tokens", tokens))
        ]
        self._admitted: set[Hashable] = set()
        self.counts: Counter[str] = Counter()
        """The answers by kind: answered, throttled, failed, hung, scripted."""
        self.per_second: dict[int, Counter[str]] = {}
        """The same by second, from the first call on, in the scaled time."""
        self.calls: Counter[Hashable] = Counter()
        """The calls by key."""
        self.answered: Counter[Hashable] = Counter()
        """The calls that got a result, by key."""
        self.repeated = 0
        """The calls that an SDK repeated by itself."""
        self.share = 0.0
        """The share of the allowed rate that was used up to the time at which the last key was first admitted.

        Afterwards there is too little left to do for a fair comparison: a single call that hangs takes longer than all others.
        """

    def reply(self, key: Hashable, tokens: float, *, is_repeated: bool = False) -> Reply:
        """Return the answer to a call for a key that uses a number of tokens."""
        now = self._clock()
        if not self.calls:
            self._first = now
        self.calls[key] += 1
        self.repeated += is_repeated
        scripted = None if self._script is None else self._script(self.calls.total())
        if scripted is not None:
            self._count("scripted", now)
            return Reply(scripted.status, 0.0, scripted.body, dict(scripted.pairs()))
        needed = list(zip(self._buckets, (1.0, tokens), strict=True))
        waits = [bucket.wait(amount, now) for bucket, amount in needed]
        if any(waits):
            self._count("throttled", now)
            return self._throttled(waits)
        for bucket, amount in needed:
            bucket.take(amount)
        if key not in self._admitted:
            self._admitted.add(key)
            self.share = self._share_at(now)
        chance = self._random.random()
        seconds = self._random.uniform(*self._latency) / self._speed
        if chance < self._hanging:
            self._count("hung", now)
            return Reply(200, math.inf)
        if chance < self._hanging + self._failing:
            self._count("failed", now)
            return Reply(500, seconds, _error("The server had an error.", "server_error", None))
        self._count("answered", now)
        self.answered[key] += 1
        return Reply(200, seconds, _completion(str(key), tokens), self._headers())

    def _count(self, kind: str, now: float) -> None:
        self.counts[kind] += 1
        second = int((now - self._first) * self._speed)
        self.per_second.setdefault(second, Counter())[kind] += 1

    def _share_at(self, now: float) -> float:
        seconds = now - self._first
        return max(bucket.used / (bucket.burst + bucket.rate * seconds) for bucket in self._buckets)

    def _throttled(self, waits: list[float]) -> Reply:
        longest = max(waits)
        name = self._buckets[waits.index(longest)].name
        # Whole seconds of the service, as it sends them.
        delay = math.ceil(longest * self._speed) / self._speed
        spelling = {"retry-after": f"{delay:.0f}"}
        if self._speed != 1:
            spelling = {"retry-after-ms": f"{delay * 1000:.0f}"}
        message = f"Rate limit reached for model on {name} per min. Please try again in {longest * 1000:.0f}ms."
        body = _error(message, name, "rate_limit_exceeded")
        return Reply(429, 0.005 / self._speed, body, {**spelling, **self._headers()})

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for bucket in self._buckets:
            limit = bucket.rate * 60 / self._speed
            headers[f"x-ratelimit-limit-{bucket.name}"] = f"{limit:.0f}"
            headers[f"x-ratelimit-remaining-{bucket.name}"] = f"{max(0.0, bucket.level):.0f}"
            full = (bucket.burst - bucket.level) / bucket.rate
            headers[f"x-ratelimit-reset-{bucket.name}"] = f"{full * 1000:.0f}ms"
        return headers


def _error(message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _completion(text: str, tokens: float) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_796_000_000,
        "model": "model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1},
    }
