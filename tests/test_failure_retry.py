"""`Retry` with the verdicts of `classify`, and with its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace import CapacitySource, HierarchicalTaskPoolRunner, Retry, Verdict
from headrace.task.failure import PROGRAMMING_ERRORS
from tests.pool_support import envelopes, pool


class AnswerError(Exception):
    """An error of an HTTP client."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.headers = {name.replace("_", "-"): text for name, text in headers.items()}


async def attempts(error: Exception, retry: Retry) -> int:
    """Return the number of calls of a task that always fails. Without a cooldown, its `Retry` decides alone."""

    async def fail() -> None:
        raise error

    [found] = await envelopes(pool([fail], retry=retry, cooldown=False, on_error="continue"))
    assert found.error is error
    return found.attempt


@pytest.mark.virtual
@pytest.mark.parametrize("error", [*PROGRAMMING_ERRORS, *map(AnswerError, (400, 401, 402, 404))])
async def test_error_that_another_call_repeats_is_not_retried(error: Any) -> None:
    error = error("no") if isinstance(error, type) else error
    assert await attempts(error, Retry(3)) == 1
    assert await attempts(error, Retry(3, on=lambda _: False)) == 1


@pytest.mark.virtual
@pytest.mark.parametrize(
    "error", [ValueError(), KeyError(), OSError(), TimeoutError(), *map(AnswerError, (429, 500))]
)
async def test_error_that_may_pass_is_retried(error: Exception) -> None:
    assert await attempts(error, Retry(3)) == 4
    assert await attempts(error, Retry(3, on=ZeroDivisionError)) == 1


@pytest.mark.virtual
@pytest.mark.parametrize("on", [TypeError, (TypeError, ValueError), lambda _: True])
async def test_on_selects_programming_errors(on: Any) -> None:
    assert await attempts(TypeError("no"), Retry(3, on=on)) == 4
    assert await attempts(TypeError("no"), Retry(3, on=on, classify=lambda _: "permanent")) == 1
    assert await attempts(TypeError("no"), Retry(3, on=Exception)) == 1


@pytest.mark.virtual
@pytest.mark.parametrize("status", [401, 404])
async def test_on_selects_no_answer_that_is_repeated(status: int) -> None:
    assert await attempts(AnswerError(status), Retry(3, on=AnswerError)) == 1
    assert await attempts(AnswerError(status), Retry(3, classify=lambda _: "transient")) == 4


@pytest.mark.virtual
@pytest.mark.parametrize("status", [429, 503, 500])
async def test_delay_of_the_server_replaces_the_back_off(status: int) -> None:
    calls: list[float] = []

    async def work() -> str:
        calls.append(asyncio.get_running_loop().time())
        if len(calls) < 3:
            raise AnswerError(status, retry_after="90")
        return "done"

    # A throttled answer cools the capacity down, on its clock.
    capacity = CapacitySource(1, clock=asyncio.get_running_loop().time)
    retry = Retry(3, backoff=1, max_backoff=2)
    [found] = await envelopes(HierarchicalTaskPoolRunner([work], capacity, retry=retry))
    assert found.value == "done"
    assert calls[1] - calls[0] == calls[2] - calls[1] == pytest.approx(90)


def test_delay_is_that_of_the_verdict_or_else_the_back_off() -> None:
    error = AnswerError(429, retry_after="7")
    assert Retry().delay(error, 1) == 7
    assert Retry(classify=lambda _: Verdict("transient", 5)).delay(error, 1) == 5
    assert Retry(jitter=False, classify=lambda _: "throttled").delay(error, 1) == 0.5
    assert Retry(jitter=False).delay(error, 1, verdict=Verdict("throttled")) == 0.5


@pytest.mark.virtual
async def test_classify_is_called_once_for_each_failure() -> None:
    error = ValueError()
    seen: list[Exception] = []

    def judge(failed: Exception) -> Verdict:
        seen.append(failed)
        return Verdict("throttled", 1)

    async def fail() -> None:
        raise error

    # The last failure is not retried in any case, and could be fatal.
    retry = Retry(2, classify=judge)
    [found] = await envelopes(pool([fail], retry=retry, cooldown=False))
    assert found.attempt == 3
    assert seen == [error] * 3
    # Otherwise its verdict has no use.
    assert await attempts(error, retry) == 3
    assert seen == [error] * 5


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, r"the result of classify must be a Verdict or its kind, not None"),
        (5, r"the result of classify must be a Verdict or its kind, not 5 \(int\)"),
        ("retry", "the kind in the result of classify must be one of 'throttled', .* got 'retry'"),
        (Verdict("never"), "the kind in the result of classify must be one of"),  # type: ignore[arg-type]
        (Verdict("throttled", -1), "the delay of the result of classify must not be negative"),
        (Verdict("throttled", "1"), "the delay of the result of classify must be a number"),  # type: ignore[arg-type]
    ],
)
async def test_wrong_verdict_is_the_error_of_the_task(result: Any, message: str) -> None:
    async def fail() -> None:
        raise ValueError

    retry = Retry(classify=lambda _: result)
    with pytest.raises((TypeError, ValueError), match=message):
        retry.applies(ValueError(), 1)
    [found] = await envelopes(pool([fail], retry=retry))
    assert isinstance(found.error, (TypeError, ValueError))
    assert "classify" in str(found.error)


async def test_error_of_classify_is_the_error_of_the_task() -> None:
    async def fail() -> None:
        raise ValueError

    [found] = await envelopes(pool([fail], retry=Retry(classify=lambda _: 1 / 0)))  # type: ignore[arg-type,return-value]
    assert isinstance(found.error, ZeroDivisionError)
    assert isinstance(found.error.__cause__, ValueError)


def test_cancellation_is_never_retried() -> None:
    retry: Retry = Retry(on=BaseException, classify=lambda _: "transient")
    assert not retry.applies(asyncio.CancelledError(), 1)
    assert retry.verdict(asyncio.CancelledError()).kind == "permanent"


def judge(error: Exception) -> Verdict:
    return Verdict("transient")


def test_classify_is_a_parameter_of_the_value() -> None:
    assert Retry(classify=judge) == Retry(classify=judge) != Retry()
    assert hash(Retry(classify=judge)) == hash(Retry())
    with pytest.raises(TypeError, match="Retry: classify must be callable or None, got 5"):
        Retry(classify=5)  # type: ignore[arg-type]
