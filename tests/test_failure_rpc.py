"""`classify` on the errors of grpc and of Google's clients over it, each raised for the failure of a server on this machine."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from headrace import classify
from tests.recorded import raised_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# (name of the code, kind, delay, details)
PER_DAY = "GenerateRequestsPerDayPerProject"
QUOTA = {"violations": [{"subject": "project:1", "description": "Quota", "quota_id": PER_DAY}]}
ERROR_INFO = {"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quota_limit": PER_DAY}}
RPCS: list[tuple[str, str, float | None, list[tuple[str, dict[str, Any]]]]] = [
    ("RESOURCE_EXHAUSTED", "throttled", 13.25, [("RetryInfo", {"retry_delay": {"seconds": 13, "nanos": 250_000_000}})]),
    ("RESOURCE_EXHAUSTED", "throttled", None, []),
    ("RESOURCE_EXHAUSTED", "fatal", None, [("QuotaFailure", QUOTA), ("RetryInfo", {"retry_delay": {"seconds": 1}})]),
    ("RESOURCE_EXHAUSTED", "fatal", None, [("ErrorInfo", ERROR_INFO)]),
    ("UNAVAILABLE", "throttled", 2.0, [("RetryInfo", {"retry_delay": {"seconds": 2}})]),
    *[(name, "transient", None, []) for name in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNKNOWN", "CANCELLED")],
    *[(name, "permanent", None, []) for name in ("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION")],
    *[(name, "permanent", None, []) for name in ("OUT_OF_RANGE", "UNIMPLEMENTED", "DATA_LOSS")],
    *[(name, "fatal", None, []) for name in ("UNAUTHENTICATED", "PERMISSION_DENIED")],
]  # fmt: skip


def packed_status(code: int, details: list[tuple[str, dict[str, Any]]]) -> bytes:
    """Return a `google.rpc.Status` as bytes."""
    rpc: Any = pytest.importorskip("google.rpc.error_details_pb2")
    statuses: Any = pytest.importorskip("google.rpc.status_pb2")
    status = statuses.Status(code=code, message="no")
    for name, fields in details:
        status.details.add().Pack(getattr(rpc, name)(**fields))
    packed: bytes = status.SerializeToString()
    return packed


@pytest.fixture(scope="module")
def rpc_server() -> Iterator[str]:
    """A server of RPCs whose method N fails as the N-th row of `RPCS` says."""
    grpc = pytest.importorskip("grpc")

    def fail(request: bytes, context: Any) -> bytes:
        name, _, _, details = RPCS[int(request)]
        code = grpc.StatusCode[name]
        if details:
            packed = packed_status(code.value[0], details)
            context.set_trailing_metadata((("grpc-status-details-bin", packed),))
        context.abort(code, "no")
        raise AssertionError("abort raises")

    handlers = grpc.method_handlers_generic_handler(
        "test.Service", {"Fail": grpc.unary_unary_rpc_method_handler(fail)}
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def use_grpc(address: str, number: int) -> None:
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel(address) as channel:
        channel.unary_unary("/test.Service/Fail")(b"%d" % number)


def use_grpc_async(address: str, number: int) -> None:
    grpc = pytest.importorskip("grpc")

    async def call() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.unary_unary("/test.Service/Fail")(b"%d" % number)

    asyncio.run(call())


def use_google_api_core_rpc(address: str, number: int) -> None:
    helpers = pytest.importorskip("google.api_core.grpc_helpers")
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel(address) as channel:
        helpers.wrap_errors(channel.unary_unary("/test.Service/Fail"))(b"%d" % number)


@pytest.mark.parametrize("client", [use_grpc, use_grpc_async, use_google_api_core_rpc])
@pytest.mark.parametrize("number", range(len(RPCS)), ids=lambda number: RPCS[number][0])
def test_rpc_through_its_client(
    rpc_server: str, client: Callable[[str, int], None], number: int
) -> None:
    name, kind, delay, details = RPCS[number]
    error = raised_by(lambda: client(rpc_server, number))
    verdict = classify(error)
    assert (verdict.kind, verdict.delay) == (kind, delay), (verdict, repr(error))
    assert details or name in verdict.reason


def test_retry_error_of_google_has_the_verdict_of_its_cause() -> None:
    exceptions = pytest.importorskip("google.api_core.exceptions")
    cause = exceptions.PermissionDenied("no")

    def fail() -> None:
        raise exceptions.RetryError("gave up", cause) from cause

    assert classify(raised_by(fail)).kind == "fatal"
