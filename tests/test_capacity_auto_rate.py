"""`Rate.auto()`: its configuration, the limits that answers state, and pools in virtual time against servers of unknown rates."""

from __future__ import annotations

import asyncio
import copy
import random
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    Rate,
    SourceIterObj,
    Task,
    ThrottledError,
    current_lease,
)
from headrace.task._stated_limits import stated_limits

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = [1, 2]


class Throttled(Exception):
    status_code = 429


# Configuration.


def test_configuration_is_a_value() -> None:
    rate = Rate.auto(120, minimum=6, maximum=6000)
    assert repr(rate) == "Rate.auto(start=120, per=60.0, minimum=6, maximum=6000)"
    assert rate == copy.deepcopy(rate) == Rate.auto(120, minimum=6, maximum=6000)
    assert isinstance(Rate.parse("auto"), Rate)
    assert Rate.parse("auto") == Rate.auto() != Rate(60)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": "1"}, TypeError, r"start must be a number, got '1' \(str\)"),
        ({"start": 0}, ValueError, "start must be above 0, got 0"),
        ({"per": 0}, ValueError, "per must be above 0, got 0"),
        ({"minimum": 0}, ValueError, "minimum must be above 0, got 0"),
        ({"minimum": 7, "maximum": 6}, ValueError, "maximum must be at least minimum, which is 7"),
        ({"maximum": 50}, ValueError, "start must be between minimum and maximum"),
        ({"burst": 0}, ValueError, "burst must be above 0"),
    ],
)
def test_invalid_range_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Rate.auto(**options)


def test_resize_sets_the_maximum() -> None:
    capacity = CapacitySource({"calls": Rate.auto(120)})
    assert capacity.limits["calls"] == Rate(120)
    assert capacity.snapshot().limit["calls"] == Rate(120)
    assert repr(capacity) == "<CapacitySource: 0 of 120 calls in 60.0 s, auto, open>"
    capacity.resize({"calls": Rate(1, 1)})
    assert capacity.limits["calls"] == Rate(60)
    capacity.resize({"calls": Rate(0)})
    assert capacity.available["calls"] == 0
    capacity.resize({"calls": Rate(600)})
    assert capacity.limits["calls"] == Rate(120)
    capacity.resize({"calls": Rate.auto(60, 1, maximum=90)})
    assert capacity.limits["calls"] == Rate(2, 1)
    with pytest.raises(ValueError, match=r"cannot become Rate\.auto"):
        CapacitySource({"calls": Rate(5)}).resize({"calls": Rate.auto()})


def test_cost_above_the_amount_is_granted() -> None:
    capacity = CapacitySource({"tokens": Rate.auto(60)})
    with capacity.acquire_sync({"tokens": 5000}, owner=None):
        assert capacity.acquire_nowait({"tokens": 1}, owner=None) is None


# The limits that answers state.


@pytest.mark.parametrize(
    ("headers", "requests", "tokens"),
    [
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "20ms",
                "X-RateLimit-Limit-Tokens": "150000",
                "X-RateLimit-Remaining-Tokens": "149984",
                "X-RateLimit-Reset-Tokens": "6m0s",
            },
            (60, 59, 0.02),
            (150000, 149984, 360),
        ),
        (
            {
                "date": "Tue, 01 Dec 2026 10:00:00 GMT",
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2026-12-01T10:00:17Z",
                "anthropic-ratelimit-input-tokens-limit": "30000",
                "anthropic-ratelimit-input-tokens-remaining": "300",
                "anthropic-ratelimit-input-tokens-reset": "2026-12-01T10:01:00Z",
                "anthropic-ratelimit-output-tokens-limit": "8000",
                "anthropic-ratelimit-output-tokens-remaining": "8000",
                "anthropic-ratelimit-output-tokens-reset": "2026-12-01T10:00:00Z",
            },
            (50, 49, 17),
            (30000, 300, 60),
        ),
        (
            {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "57", "x-ratelimit-reset": "9"},
            (60, 57, 9),
            None,
        ),
        (
            {
                "RateLimit-Limit": "100, 100;w=60",
                "RateLimit-Remaining": "50",
                "RateLimit-Reset": "5",
            },
            (100, 50, 5),
            None,
        ),
        ({"ratelimit": "limit=100, remaining=50, reset=5"}, (100, 50, 5), None),
        (
            {"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'},
            (100, 50, 30),
            None,
        ),
        # The stricter one of two limits.
        (
            {
                "x-ratelimit-limit-requests-day": "1000",
                "x-ratelimit-remaining-requests-day": "10",
                "x-ratelimit-reset-requests-day": "1000",
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "60",
                "x-ratelimit-reset-requests": "0s",
            },
            (1000, 10, 1000),
            None,
        ),
        ({"x-ratelimit-remaining": "many", "x-ratelimit-reset": "5"}, None, None),
        ({"content-type": "text/plain"}, None, None),
    ],
)
def test_limits_of_headers(headers: dict[str, str], requests: Any, tokens: Any) -> None:
    assert stated_limits(["calls", "tokens"], headers, None) == [requests, tokens]


def test_resource_takes_the_limit_of_its_own_name() -> None:
    headers = {
        f"anthropic-ratelimit-{unit}-{field}": str(value)
        for unit, value in (("requests", 1), ("input-tokens", 2), ("tokens", 3))
        for field in ("limit", "remaining", "reset")
    }
    names = ["input_tokens", "tokens", "my tokens", "anything"]
    limits = stated_limits(names, headers, None)
    assert [limit and limit[1] for limit in limits] == [2, 3, 2, 1]


def test_reported_headers_set_the_rate() -> None:
    capacity = CapacitySource({"calls": Rate.auto(60)})
    child = CapacitySource({"slots": 5}, capacity)
    with child.acquire_sync({"slots": 1, "calls": 1}, owner=None) as lease:
        lease.report(
            headers={
                "x-ratelimit-limit": "100",
                "x-ratelimit-remaining": "50",
                "x-ratelimit-reset": "10",
            }
        )
    assert capacity.limits["calls"] == Rate(300)


def test_error_carries_headers() -> None:
    capacity = CapacitySource({"calls": Rate.auto(60)})

    class Refused(Exception):
        status_code = 400
        headers = {  # noqa: RUF012  # the shape of a client's error
            "x-ratelimit-limit": "100",
            "x-ratelimit-remaining": "50",
            "x-ratelimit-reset": "10",
        }

    with capacity.acquire_sync({"calls": 1}, owner=None) as lease:
        lease.report(error=Refused())
    assert capacity.limits["calls"] == Rate(300)


# Pools.


class Server:
    """A token bucket, with stated limits or without."""

    def __init__(self, rate: float, burst: float, *, states: bool, seed: int) -> None:
        self.rate, self.burst, self.states = rate, burst, states
        self.retry_after: float | None = None
        self.seconds = (0.05, 0.2)
        self.random = random.Random(seed)
        self.done: list[tuple[float, int]] = []
        self.throttled: list[float] = []
        self.stated_at = float("inf")
        self._level, self._at = burst, 0.0
        print(f"seed {seed}")

    async def call(self, client: int = 0) -> None:
        loop = asyncio.get_running_loop()
        delay = self.random.uniform(*self.seconds)
        await asyncio.sleep(delay / 2)
        now = loop.time()
        self._level = min(self.burst, self._level + self.rate * (now - self._at))
        self._at = now
        is_accepted = self._level >= 1
        self._level -= is_accepted
        headers = {
            "x-ratelimit-limit-requests": f"{self.burst:g}",
            "x-ratelimit-remaining-requests": str(int(self._level)),
            "x-ratelimit-reset-requests": f"{(self.burst - self._level) / self.rate:.3f}s",
        }
        await asyncio.sleep(delay / 2 if is_accepted else 0.01)
        if self.states:
            self.stated_at = min(self.stated_at, loop.time())
            lease = current_lease()
            assert lease is not None
            lease.report(headers=headers)
        if not is_accepted:
            self.throttled.append(loop.time())
            error = Throttled()
            if self.retry_after is not None:
                error.retry_after = self.retry_after  # type: ignore[attr-defined]
            raise error
        self.done.append((loop.time(), client))

    def rate_of(self, after: float, until: float) -> float:
        return sum(after <= end < until for end, _ in self.done) / (until - after)

    def part_throttled(self, after: float, until: float) -> float:
        throttled = sum(after <= end < until for end in self.throttled)
        return throttled / (throttled + self.rate_of(after, until) * (until - after))


def auto(**options: Any) -> CapacitySource:
    clock = asyncio.get_running_loop().time
    return CapacitySource({"slots": 40, "calls": Rate.auto(**options)}, clock=clock)


async def serve(
    server: Server,
    capacity: CapacitySource,
    until: float,
    *,
    client: int = 0,
    at: dict[float, float] | None = None,
    also: Callable[[], None] = lambda: None,
) -> None:
    """Run a pool of calls until a time."""
    loop = asyncio.get_running_loop()

    def calls() -> Any:
        while loop.time() < until:
            also()
            yield Task(server.call, client, cost={"slots": 1, "calls": 1})

    for moment, rate in (at or {}).items():
        loop.call_at(moment, setattr, server, "rate", rate)
    runner = HierarchicalTaskPoolRunner(SourceIterObj(calls()), capacity)
    async with runner.run_tasks() as events:
        async for envelope in events:
            assert envelope.error is None


@pytest.mark.virtual
@pytest.mark.parametrize("seed", SEEDS)
async def test_stated_limits_prevent_every_429(seed: int) -> None:
    server = Server(10, 60, states=True, seed=seed)
    await serve(server, auto(), 180)
    assert [end for end in server.throttled if end > server.stated_at] == []
    assert server.rate_of(10, 180) >= 0.95 * 10
    assert server.rate_of(60, 180) == pytest.approx(10, rel=0.05)


@pytest.mark.virtual
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("rate", "burst", "refused", "used"),
    [(1, 60, 0.0, 0.95), (1, 10, 0.15, 0.15), (0.2, 10, 0.3, 0.85)],
)
async def test_first_answers_of_slow_calls_are_late(
    seed: int, rate: float, burst: float, refused: float, used: float
) -> None:
    server = Server(rate, burst, states=True, seed=seed)
    server.seconds = (5, 30)
    await serve(server, auto(), 360)
    # Calls that begin before the first answers may be refused, if the bucket does not hold as many.
    assert server.part_throttled(0, 60) <= refused
    assert server.part_throttled(60, 360) == 0
    assert server.rate_of(60, 360) >= used * rate


@pytest.mark.virtual
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("retry_after", [None, 1.0])
async def test_unknown_rate_is_found(seed: int, retry_after: float | None) -> None:
    server = Server(10, 60, states=False, seed=seed)
    server.retry_after = retry_after
    await serve(server, auto(), 360)
    assert server.rate_of(60, 360) >= 0.9 * 10
    assert server.part_throttled(60, 360) <= 0.02


@pytest.mark.virtual
@pytest.mark.parametrize("states", [True, False])
async def test_changed_rate_is_followed_in_60_s(states: bool) -> None:
    server = Server(10, 60, states=states, seed=3)
    await serve(server, auto(), 360, at={120: 5, 240: 15})
    for best, after, until in [(10, 60, 120), (5, 180, 240), (15, 300, 360)]:
        assert server.rate_of(after, until) >= 0.8 * best
        assert server.part_throttled(after, until) <= 0.05


@pytest.mark.virtual
async def test_rate_does_not_rise_while_idle() -> None:
    server = Server(10, 60, states=False, seed=4)
    capacity = auto()
    await serve(server, capacity, 100)
    learned = capacity.limits["calls"]
    await asyncio.sleep(1000)
    assert capacity.limits["calls"] == learned


@pytest.mark.virtual
async def test_rate_does_not_rise_while_slots_hold_work_back() -> None:
    clock = asyncio.get_running_loop().time
    capacity = CapacitySource({"slots": 1, "calls": Rate.auto(600)}, clock=clock)

    async def work() -> None:
        await asyncio.sleep(1)

    tasks = SourceIterObj([Task(work, cost={"slots": 1, "calls": 1}) for _ in range(50)])
    async with HierarchicalTaskPoolRunner(tasks, capacity).run_tasks() as events:
        assert len([event async for event in events]) == 50
    assert capacity.limits["calls"] == Rate(600)


@pytest.mark.virtual
@pytest.mark.parametrize("states", [True, False])
async def test_two_clients_share_a_server(states: bool) -> None:
    server = Server(10, 60, states=states, seed=5)
    await asyncio.gather(*(serve(server, auto(), 300, client=client) for client in range(2)))
    assert server.rate_of(60, 300) >= 0.9 * 10
    assert server.part_throttled(60, 300) <= 0.02
    if states:
        done = Counter(client for _, client in server.done)
        assert done[0] / done.total() == pytest.approx(0.5, abs=0.05)


@pytest.mark.virtual
@pytest.mark.parametrize("kind", ["plain", "states", "refuses"])
@pytest.mark.parametrize("weights", [(1, 3), (1, 2, 3)])
async def test_weights_of_pools_hold_at_a_rate(weights: tuple[int, ...], kind: str) -> None:
    server = Server(10, 60, states=kind == "states", seed=6)
    root = auto()
    if kind == "plain":
        clock = asyncio.get_running_loop().time
        root = CapacitySource({"slots": 40, "calls": Rate(10, 1)}, clock=clock)
    children = [CapacitySource({"slots": 40}, root, weight=weight) for weight in weights]
    await asyncio.gather(
        *(serve(server, child, 360, client=client) for client, child in enumerate(children))
    )
    done = Counter(client for end, client in server.done if 60 <= end < 360)
    assert done.total() >= 0.9 * 10 * 300
    for client, weight in enumerate(weights):
        assert done[client] / done.total() == pytest.approx(weight / sum(weights), rel=0.03)


@pytest.mark.virtual
@pytest.mark.parametrize("seconds", [0.1, 5.0])
async def test_server_that_refuses_everything_is_called_rarely(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    calls: list[float] = []

    async def refused() -> None:
        calls.append(loop.time())
        await asyncio.sleep(seconds)
        raise Throttled

    tasks = SourceIterObj([Task(refused, cost={"slots": 1, "calls": 1}) for _ in range(1000)])
    async with HierarchicalTaskPoolRunner(tasks, auto()).run_tasks() as events:
        first = await anext(aiter(events))
    assert isinstance(first.error, ThrottledError)
    assert len(calls) <= 30
    gaps = [later - earlier for earlier, later in pairwise(calls)]
    # The back-off of a plain cooldown in the end.
    assert gaps[-3:] == pytest.approx([64 + seconds] * 3, abs=1)
