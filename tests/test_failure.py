"""`classify` by shape, without any client. `test_failure_clients.py` has the errors of real clients."""

from __future__ import annotations

import asyncio
import builtins
import gc
import inspect
import subprocess
import sys
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock, NonCallableMock
from urllib.error import HTTPError

import pytest

from headrace import Verdict, classify
from headrace.task._grpc_status import decode_status
from tests.recorded import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable


class UnknownError(Exception):
    """An error that says nothing."""


def status(number: int, **headers: str) -> ServiceError:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return ServiceError(status_code=number, headers=named)


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def group(*members: Exception) -> Exception:
    return ExceptionGroup("several", members)


def in_context(error: BaseException, context: BaseException) -> BaseException:
    error.__context__ = context
    return error


# The kinds of builtin exceptions.


def builtin_exceptions() -> list[type[Exception]]:
    return [
        found
        for found in vars(builtins).values()
        if inspect.isclass(found)
        and issubclass(found, Exception)
        and not issubclass(found, (Warning, ExceptionGroup))
    ]


def test_only_programming_errors_of_python_are_permanent() -> None:
    permanent = {
        found.__name__
        for found in builtin_exceptions()
        if classify(found.__new__(found)).kind != "transient"
    }
    assert permanent == {
        "AttributeError",
        "ImportError",
        "IndentationError",
        "ModuleNotFoundError",
        "NameError",
        "NotImplementedError",
        "SyntaxError",
        "TabError",
        "TypeError",
        "UnboundLocalError",
    } | ({"ImportCycleError"} & set(dir(builtins)))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UnknownError(), "transient"),
        (ValueError(), "transient"),
        (KeyError("choices"), "transient"),
        (TimeoutError(), "transient"),
        (ConnectionResetError(), "transient"),
        (asyncio.IncompleteReadError(b"", 5), "transient"),
        (asyncio.CancelledError(), "permanent"),
        (GeneratorExit(), "permanent"),
        (KeyboardInterrupt(), "fatal"),
        (SystemExit(1), "fatal"),
        (SystemExit(404), "fatal"),
    ],
)
def test_errors_without_an_answer(error: BaseException, kind: str) -> None:
    verdict = classify(error)
    assert verdict == Verdict(kind, None, type(error).__name__)  # type: ignore[arg-type]


STATUSES = {
    "transient": [408, 409, 425, 500, 502, 503, 504, 520, 599],
    "permanent": [400, 403, 404, 405, 406, 410, 411, 412, 413, 414, 415, 418, 422, 424, 451],
    "fatal": [401, 402],
    "throttled": [429, 529],
}


@pytest.mark.parametrize("kind", STATUSES)
@pytest.mark.parametrize("attribute", ["status_code", "status", "code"])
def test_kind_of_a_status(kind: str, attribute: str) -> None:
    for number in STATUSES[kind]:
        shapes = [
            ServiceError(**{attribute: number}),
            ServiceError(response=SimpleNamespace(**{attribute: number})),
        ]
        for error in shapes:
            assert classify(error) == Verdict(kind, None, f"{number} of ServiceError")  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, 200, 204, 302, 1006, -1, True, 429.0, None])
def test_number_that_is_no_failed_status(number: object) -> None:
    for attribute in ("status_code", "status", "code"):
        assert classify(ServiceError(**{attribute: number})) == Verdict(
            "transient", None, "ServiceError"
        )


# Causes and groups.


def test_cause_that_is_an_answer_decides() -> None:
    refused = status(401)
    assert classify(caused(UnknownError(), refused)).kind == "fatal"
    assert classify(caused(ConnectionError(), refused)).kind == "fatal"
    assert classify(in_context(UnknownError(), refused)).kind == "fatal"
    assert classify(
        caused(UnknownError(), in_context(ValueError(), status(429, retry_after="3")))
    ) == Verdict("throttled", 3.0, "429 of ServiceError")


def test_error_that_says_something_itself_decides() -> None:
    assert classify(caused(status(503), status(401))).kind == "transient"
    assert classify(caused(TypeError(), status(429))).kind == "permanent"


def test_context_of_a_connection_error_is_another_call() -> None:
    assert classify(in_context(ConnectionError(), status(401))).kind == "transient"
    hidden = in_context(UnknownError(), status(401))
    hidden.__suppress_context__ = True
    assert classify(hidden).kind == "transient"


def test_programming_error_counts_only_by_itself() -> None:
    assert classify(caused(UnknownError(), TypeError())).kind == "transient"
    assert classify(caused(UnknownError(), ExceptionGroup("", [TypeError()]))).kind == "transient"
    assert classify(caused(TimeoutError(), asyncio.CancelledError())).kind == "transient"


def test_causes_are_bounded() -> None:
    def chain(length: int) -> BaseException:
        error: BaseException = status(401)
        for _ in range(length):
            error = caused(UnknownError(), error)
        return error

    assert classify(chain(8)).kind == "fatal"
    assert classify(chain(9)).kind == "transient"
    one, other = UnknownError(), UnknownError()
    one.__cause__, other.__cause__ = other, one
    assert classify(one).kind == "transient"


@pytest.mark.parametrize(
    ("members", "verdict"),
    [
        ([status(500), ValueError()], Verdict("transient", None, "ValueError")),
        ([status(500), status(429)], Verdict("throttled", None, "429 of ServiceError")),
        (
            [status(429, retry_after="3"), status(429, retry_after="9"), status(429)],
            Verdict("throttled", 9.0, "429 of ServiceError"),
        ),
        ([status(429), TypeError()], Verdict("permanent", None, "TypeError")),
        ([TypeError(), status(402), status(429)], Verdict("fatal", None, "402 of ServiceError")),
        (
            [ExceptionGroup("", [status(401)]), ValueError()],
            Verdict("fatal", None, "401 of ServiceError"),
        ),
    ],
)
def test_worst_member_of_a_group_decides(members: list[Exception], verdict: Verdict) -> None:
    for order in (members, members[::-1]):
        found = classify(ExceptionGroup("several", order))
        assert (found.kind, found.delay) == (verdict.kind, verdict.delay)
    assert classify(ExceptionGroup("several", members)) == verdict
    assert (
        classify(caused(UnknownError(), ExceptionGroup("several", [status(401)]))).kind == "fatal"
    )


def test_members_are_bounded() -> None:
    many: list[Exception] = [UnknownError() for _ in range(100)]
    assert classify(ExceptionGroup("", [*many[1:], status(401)])).kind == "fatal"
    assert classify(ExceptionGroup("", [*many, status(401)])).kind == "transient"
    deep: Exception = status(401)
    for _ in range(90):
        deep = group(deep)
    assert classify(deep).kind == "fatal"
    for _ in range(5_000):
        deep = group(deep)
    assert classify(deep).kind == "transient"


# Codes.


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"code": "insufficient_quota"}}, "fatal"),
        ({"code": "insufficient_quota"}, "fatal"),
        ('{"error": {"code": "INSUFFICIENT-QUOTA"}}', "fatal"),
        (b'{"error": {"type": "billing_error"}}', "fatal"),
        ([{"error": {"status": "RESOURCE_EXHAUSTED"}}], "throttled"),
        ({"error": {"errors": [{"reason": "rateLimitExceeded"}], "status": "PERMISSION_DENIED"}}, "throttled"),
        ({"error": {"errors": [{"reason": "quotaExceeded"}], "code": 403}}, "fatal"),
        ({"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}, "throttled"),
        ({"error": "slow_down"}, "throttled"),
        ({"error": {"code": "of_tomorrow"}}, "permanent"),
        ({"error": {"type": "server_error"}}, "permanent"),
        ({"error": None}, "permanent"),
        ({"error": [1]}, "permanent"),
        ("not JSON", "permanent"),
        ("[" * 100_000, "permanent"),
        (b"\xff\xfe", "permanent"),
        ([], "permanent"),
        ({1: 2}, "permanent"),
    ],
)  # fmt: skip
def test_code_wins_over_the_status(body: object, kind: str) -> None:
    assert classify(ServiceError(status_code=400, body=body)).kind == kind


def test_code_in_place_of_a_status() -> None:
    for success in ({}, {"status_code": 200}):
        for code, kind in [("server_error", "transient"), ("invalid_request_error", "permanent")]:
            error = ServiceError(body={"error": {"type": code}}, **success)
            assert classify(error).kind == kind
    assert classify(ServiceError(body={"error": {"code": 429}})).kind == "throttled"


@pytest.mark.parametrize(
    ("code", "number", "kind"),
    [
        ("ThrottlingException", 400, "throttled"),
        ("ServiceQuotaExceededException", 400, "fatal"),
        ("ExpiredToken", 400, "fatal"),
        ("AccessDenied", 403, "permanent"),
        ("NoSuchKey", 404, "permanent"),
        ("InternalError", 500, "transient"),
        ("SlowDown", 503, "throttled"),
        ("validationException", 200, "permanent"),
    ],
)
def test_botocore(code: str, number: int, kind: str) -> None:
    response = {
        "Error": {"Code": code, "Message": "no"},
        "ResponseMetadata": {"HTTPStatusCode": number, "HTTPHeaders": {"retry-after": "4"}},
    }
    verdict = classify(ServiceError(response=response))
    assert (verdict.kind, verdict.delay) == (
        kind,
        4.0 if kind in ("throttled", "transient") else None,
    )
    assert verdict.reason == f"{number} of ServiceError, {code}"
    cuts: list[dict[str, Any]] = [{}, {"Error": None}, {"Error": {}}, {"ResponseMetadata": 5}]
    for cut in cuts:
        assert classify(ServiceError(response=cut)).kind == "transient"


@pytest.mark.parametrize("code", ["a\nb", "\x1b[31m", "x" * 61, "429", ""])
def test_reason_is_short_and_printable(code: str) -> None:
    assert classify(ServiceError(status=404, body={"error": {"code": code}})).reason == (
        "404 of ServiceError"
    )


def test_error_of_urllib() -> None:
    # Without a file, each of its missing attributes raises a `KeyError` on CPython before 3.13.
    error = HTTPError("http://a", 503, "busy", {"Retry-After": "8"}, None)  # type: ignore[arg-type]
    assert classify(error) == Verdict("throttled", 8.0, "503 of urllib")
    error.close()


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def detail(kind: str, value: bytes) -> bytes:
    return field(3, field(1, f"type.googleapis.com/google.rpc.{kind}".encode()) + field(2, value))


RETRY_INFO = detail("RetryInfo", field(1, field(1, 13)))
PER_DAY = detail("QuotaFailure", field(1, field(5, b"RequestsPerDay")))


class RpcError(Exception):
    """Has the methods of an error of grpc."""

    def __init__(self, name: str, packed: object = None) -> None:
        super().__init__(name)
        self._name, self._packed = name, packed

    def code(self) -> object:
        return SimpleNamespace(name=self._name)

    def details(self) -> str:
        return "no"

    def trailing_metadata(self) -> object:
        return None if self._packed is None else [("grpc-status-details-bin", self._packed)]


@pytest.mark.parametrize(
    ("packed", "verdict"),
    [
        (None, Verdict("throttled", None, "RpcError, RESOURCE_EXHAUSTED")),
        (RETRY_INFO, Verdict("throttled", 13.0, "RpcError, RESOURCE_EXHAUSTED")),
        (field(1, 8) + field(2, b"no") + RETRY_INFO, Verdict("throttled", 13.0, "RpcError, RESOURCE_EXHAUSTED")),
        (PER_DAY + RETRY_INFO, Verdict("fatal", None, "RpcError, quota_per_day")),
        (RETRY_INFO[:-1], Verdict("throttled", None, "RpcError, RESOURCE_EXHAUSTED")),
        ("text", Verdict("throttled", None, "RpcError, RESOURCE_EXHAUSTED")),
    ],
)  # fmt: skip
def test_details_of_an_rpc(packed: object, verdict: Verdict) -> None:
    assert classify(RpcError("RESOURCE_EXHAUSTED", packed)) == verdict


def test_no_bytes_break_the_details() -> None:
    whole = (
        PER_DAY
        + RETRY_INFO
        + detail("ErrorInfo", field(1, b"R") + field(3, field(1, b"k") + field(2, b"v")))
    )
    assert len(decode_status(whole)) == 3
    for at in range(len(whole)):
        decode_status(whole[:at])
        for byte in (0x00, 0x7F, 0x80, 0xFF):
            decode_status(whole[:at] + bytes([byte]) + whole[at + 1 :])


# Errors that resist.


class ResistingError(Exception):
    """Raises from each attribute that it does not have as an exception."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


class HostileMetaclass(type):
    """A class that cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]


class UnhashableError(Exception, metaclass=HostileMetaclass):
    """Has no hash of its class."""


class ResistingResponse:
    """Raises from each attribute."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


class DictError(Exception):
    """Has no readable `__dict__`."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        raise RuntimeError("no attributes")


@pytest.mark.parametrize(
    "error",
    [
        ResistingError(),
        UnhashableError(),
        DictError(),
        ServiceError(response=ResistingResponse(), headers=ResistingResponse()),
        ServiceError(body=ResistingResponse(), code=ResistingResponse()),
        ServiceError(response=type("R", (), {"headers": property(lambda _: 1 / 0)})()),
        ServiceError(code=lambda: 1 / 0, trailing_metadata=list),
        ServiceError(code=len, trailing_metadata=len),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_that_cannot_be_read_is_transient(error: BaseException) -> None:
    assert classify(error) == Verdict("transient", None, type(error).__name__)


@pytest.mark.parametrize("make", [Mock, MagicMock, NonCallableMock])
def test_mocked_response(make: Callable[..., object]) -> None:
    error = ServiceError(response=make(status_code=429, headers={"retry-after": "3"}))
    assert classify(error) == Verdict("throttled", 3.0, "429 of ServiceError")
    assert classify(ServiceError(response=make())).kind == "transient"
    # Each of its methods returns something, none of which is an answer.
    assert (
        classify(ServiceError(response=make(status_code=404), headers=make())).kind == "permanent"
    )


def test_notes_do_not_matter() -> None:
    error = ValueError()
    error.add_note("429 in the 3rd stage")
    assert classify(error).kind == "transient"


def test_class_of_an_error_is_not_kept() -> None:
    def classified() -> weakref.ref[type]:
        local = type("LocalError", (Exception,), {})
        classify(local())
        return weakref.ref(local)

    found = classified()
    gc.collect()
    assert found() is None


def test_nothing_is_imported() -> None:
    program = """
import sys
from headrace import classify
before = set(sys.modules)
classify(ValueError())
error = Exception()
error.status_code, error.headers = 429, {"retry-after": "3"}
assert classify(error).delay == 3
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
