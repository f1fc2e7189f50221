"""`sdk_retries`: the retries of an SDK, read from its errors by their shape. `test_push_back.py` has real ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.cli.hidden_retries import HiddenRetries
from headrace.task._sdk_retries import sdk_retries
from tests.recorded import ServiceError, raised_by


def requested(count: object) -> ServiceError:
    headers = {"X-Stainless-Retry-Count": count}
    return ServiceError(request=SimpleNamespace(headers=headers))


def noted(count: object) -> ServiceError:
    return ServiceError(response={"ResponseMetadata": {"RetryAttempts": count}})


@pytest.mark.parametrize(
    ("error", "count", "remedy"),
    [
        (requested("2"), 2, "max_retries=0"),
        (requested(b"3"), 3, "max_retries=0"),
        (noted(4), 4, 'Config(retries={"total_max_attempts": 1})'),
    ],
)
def test_retries_are_read(error: ServiceError, count: int, remedy: str) -> None:
    found = sdk_retries(error)
    assert found is not None
    assert (found.count, found.remedy, found.sdk) == (count, remedy, "tests")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        requested("0"),
        requested("many"),
        requested("-1"),
        requested("9" * 5_000),
        requested("²"),
        noted(0),
        noted(None),
        noted("2"),
        ServiceError(response={"ResponseMetadata": 3}),
        ServiceError(response={}),
        ServiceError(request=None, response=SimpleNamespace()),
        ServiceError(request=SimpleNamespace(headers=7)),
    ],
)
def test_errors_without_retries(error: Exception) -> None:
    assert sdk_retries(error) is None


def test_causes_are_read_and_their_number_is_bounded() -> None:
    def fail(depth: int) -> None:
        if depth == 0:
            raise requested("1")
        try:
            fail(depth - 1)
        except ServiceError as error:
            if depth % 2:
                raise ServiceError from error
            raise ServiceError  # noqa: B904  # a context

    found = sdk_retries(raised_by(lambda: fail(5)))
    assert found is not None
    assert found.count == 1
    assert sdk_retries(raised_by(lambda: fail(20))) is None
    circle: Any = ServiceError()
    circle.__cause__ = circle
    assert sdk_retries(circle) is None


def test_hidden_retries_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    hidden = HiddenRetries()
    for error in (ValueError("no"), requested("1"), requested("2")):
        hidden.look_at(error)
    printed = capsys.readouterr().err
    assert printed.startswith("headrace map: tests repeated a failed call once by itself: ")
    assert printed.count("\n") == 1
