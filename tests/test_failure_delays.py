"""The delays that `classify` reads: `Retry-After` in all spellings, resets of limits, messages and attributes."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from headrace import Verdict, classify
from headrace.task._server_delay import advised_delay, limit_reset, parse_duration, requested_delay
from tests.recorded import ServiceError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("1.2s", 1.2),
        ("250ms", 0.25),
        ("1h2m3.5s", 3723.5),
        ("1d", 86_400.0),
        ("7m", 420.0),
        ("13", 13.0),
        (" 0.5 ", 0.5),
        (".5s", 0.5),
        ("0s", 0.0),
        ("12µs", 12e-6),
        ("-3", None),
        ("-3s", None),
        ("", None),
        ("soon", None),
        ("3 apples", None),
        ("1s2", None),
        ("nan", None),
        ("inf", None),
        ("9" * 39, 1e39),
        ("9" * 400, None),
        ("9" * 400 + "s", None),
        ("\u0661s", None),  # an Arabic digit
        ("1" * 100_000 + "s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


DATE = "Tue, 01 Dec 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "7s"}, 7.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"x-ms-retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "-5", "retry-after": "2"}, 2.0),
        ({"grpc-retry-pushback-ms": "500"}, 0.5),
        ({"grpc-retry-pushback-ms": "-1"}, None),
        ({"retry-after": "Tue, 01 Dec 2026 10:00:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Tuesday, 01-Dec-26 10:00:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Tue Dec  1 10:00:30 2026", "date": DATE}, 30.0),
        ({"retry-after": "2026-12-01T10:00:30Z", "date": DATE}, 30.0),
        ({"retry-after": "Tue, 01 Dec 2026 09:00:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "1796119230", "date": DATE}, 30.0),
        ({"retry-after": "Tue, 99 Dec 2026 09:00:00 GMT", "date": DATE}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_spellings_of_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert requested_delay(headers) == seconds


def test_date_without_a_date_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_796_119_200.0)
    for headers in ({}, {"date": "yesterday"}):
        sent = {"retry-after": "Tue, 01 Dec 2026 10:00:05 GMT", **headers}
        assert requested_delay(sent) == 5.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"reset-requests": "1s", "reset-tokens": "6m0s"}, 360.0),
        ({"reset-requests": "1s", "remaining-requests": "0", "reset-tokens": "6m0s", "remaining-tokens": "5"}, 1.0),
        ({"reset-requests": "1s", "remaining-requests": "0", "reset-tokens": "2s", "remaining-tokens": "0"}, 2.0),
        ({"reset-requests": "never", "reset-tokens": "250ms"}, 0.25),
        ({"reset": "30"}, 30.0),
        ({"reset-requests-day": "33011.38", "reset-tokens-minute": "11.38"}, 11.38),
        ({"reset-requests-day": "33011.38", "remaining-requests-day": "0", "reset-tokens-minute": "11.38"}, 33011.38),
        ({"remaining-tokens": "0"}, None),
    ],
)  # fmt: skip
def test_reset_of_the_limit_that_is_exhausted(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert limit_reset({f"x-ratelimit-{name}": text for name, text in headers.items()}) == seconds


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1796119230", 30.0), ("1796119230000", 30.0), ("2026-12-01T10:00:30Z", 30.0), ("0", None)],
)
def test_reset_as_a_time(reset: str, seconds: float | None) -> None:
    assert limit_reset({"x-ratelimit-reset": reset, "date": DATE}) == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Limit 3, Used 3. Please try again in 20s. Visit", 20.0),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 250ms.", 0.25),
        ("Please try again in 1.2s.", 1.2),
        ("Please retry after 26 seconds.", 26.0),
        ("Please retry after 400 milliseconds.", 0.4),
        ("Please retry in 38.6s.", 38.6),
        ("Please try again later.", None),
        ("try again in a moment", None),
    ],
)
def test_delay_in_a_message(message: str, seconds: float | None) -> None:
    assert advised_delay(message) == seconds


def test_delay_of_an_attribute() -> None:
    assert classify(ServiceError(retry_after=7)) == Verdict("throttled", 7.0, "ServiceError")
    assert classify(ServiceError(retry_after=timedelta(minutes=1))).delay == 60.0
    assert classify(ServiceError(status_code=503, retry_after=2.5)).kind == "throttled"
    assert classify(ServiceError(status_code=200, retry_after=2.5)).kind == "transient"
    for wrong in (-1, float("nan"), float("inf"), True, "soon", None, [1]):
        assert classify(ServiceError(retry_after=wrong)).kind == "transient"


def test_header_wins_over_body_and_attribute() -> None:
    body = {"error": {"details": [{"retryDelay": "5s"}], "message": "try again in 1s"}}
    error = ServiceError(status_code=429, body=body, retry_after=3)
    assert classify(error).delay == 5.0
    vars(error)["headers"] = {"Retry-After": "9"}
    assert classify(error).delay == 9.0


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "9"},
        {"RETRY-AFTER": 9},
        {"retry-after": b"9"},
        [("Retry-After", "9"), ("Retry-After", "10")],
        (("retry-after", b"9"),),
    ],
)
def test_headers_of_any_kind(headers: object) -> None:
    assert classify(ServiceError(status=429, headers=headers)).delay == 9.0


@pytest.mark.parametrize("headers", [None, 5, "retry-after: 9", [1], {1: 2}, [("a",)]])
def test_headers_that_are_none(headers: object) -> None:
    assert classify(ServiceError(status=429, headers=headers)) == Verdict(
        "throttled", None, "429 of ServiceError"
    )
