"""`Answer`: the answer of a service, read from an error by its shape. `failure.classify` reads one with `read_answer`.

The errors of the services' clients differ in where they keep the status, the headers and the body. `read_answer` looks for each of them at
all these places and imports no client, so it reads errors of any version, of unknown clients, and errors that were pickled. It reads
no more of a response than is in memory: a body that is still in its socket stays there.

| | status | headers | body |
|---|---|---|---|
| httpx, requests | `response.status_code` | `response.headers` | `response.content` |
| openai, anthropic | `status_code` | `response.headers` | `body` |
| aiohttp | `status` | `headers` | |
| urllib | `code` | `headers` | |
| google-genai | `code` | `response.headers` | `details` |
| google-api-core | `code`, `grpc_status_code` | `response.headers` | `details`, `errors` |
| botocore | `response["ResponseMetadata"]` | the same | `response["Error"]` |
| grpc | `code()` | `trailing_metadata()` | `grpc-status-details-bin` in them |
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from headrace.task._grpc_status import decode_status
from headrace.task._server_delay import advised_delay, parse_duration, requested_delay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPE = frozenset(
    {
        "body",
        "code",
        "details",
        "grpc_status_code",
        "headers",
        "response",
        "retry_after",
        "status",
        "status_code",
    }
)
"""The attributes of which an error has at least one if it carries an answer."""

_KEY_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
_KEY_IN_URL = re.compile(r"[?&](?:key|api[-_]?key|access_token)=")

_MAX_ITEMS = 200
_MAX_TEXT = 100_000


class Answer:
    """The parts of an answer that a verdict depends on.

    Attributes:
        status: The HTTP status; None if it is unknown.
        codes: The service's error codes, the most specific first.
        headers: The headers, with lower-case names.
        message: The service's message; empty if there is none.
        delay: The delay that the service requires, in seconds, or None.
        has_key: Whether the request is known to have carried a key.
    """

    __slots__ = ("codes", "delay", "has_key", "headers", "message", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        self.codes: list[str] = []
        self.headers: dict[str, str] = {}
        self.message = ""
        self.delay: float | None = None
        self.has_key = False


def read_answer(error: BaseException) -> Answer:
    """Return the parts of an answer that the error carries. All are empty if it carries none."""
    answer = Answer()
    response = get_attribute(error, "response")
    if isinstance(response, Mapping):
        _read_botocore(answer, cast("Mapping[object, object]", response))
    else:
        answer.status = _status(error) or _status(response)
        for holder in (response, error):
            answer.headers = answer.headers or lower_headers(get_attribute(holder, "headers"))
        for call in (error, response):
            _read_grpc(answer, call)
        for body in _bodies(error, response):
            _read_body(answer, body)
        if get_attribute(error, "domain") is not None:
            # An `ErrorInfo` of google-api-core. The `reason` of urllib is a text for people.
            answer.codes += _texts(error, ("reason",))
        answer.codes += _texts(error, ("code", "type", "status", "grpc_status_code"))
        answer.codes += _texts(get_attribute(error, "error"), ("code",))
        if not answer.message:
            answer.message = _text(get_attribute(error, "message"))
        answer.has_key = _has_key(error, response)
    if kind := answer.headers.get("x-amzn-errortype"):
        answer.codes.append(kind.partition(":")[0])
    answer.delay = _delay(answer, error)
    return answer


def get_attribute(value: object, name: str) -> Any:
    """Return an attribute, or None if there is none or it cannot be read."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None


def _called(function: Callable[[], object]) -> object:
    """Return the result of a method, or None if it raises."""
    try:
        return function()
    except Exception:
        return None


def _mapping(value: object) -> Mapping[object, object]:
    return cast("Mapping[object, object]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> list[object]:
    return (
        list(islice(cast("list[object]", value), _MAX_ITEMS))
        if isinstance(value, list | tuple)
        else []
    )


def _text(value: object) -> str:
    """Return a text; that of a `StatusCode` of grpc is its name. A number has none, nor has an `HTTPStatus`."""
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    name = None if isinstance(value, int) else get_attribute(value, "name")
    return name if isinstance(name, str) else ""


def _texts(holder: object, names: tuple[str, ...]) -> list[str]:
    found = (_text(get_attribute(holder, name)) for name in names) if holder is not None else ()
    return [text for text in found if text]


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < math.inf else None


def _is_status(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599


def _status(holder: object) -> int | None:
    for name in ("status_code", "status", "code"):
        value = get_attribute(holder, name)
        if _is_status(value):
            return int(value)
        if isinstance(value, int):
            # Not an HTTP status. The `code` of such an aiohttp error is a deprecated alias that warns.
            break
    return None


def lower_headers(value: object) -> dict[str, str]:
    """Return headers with lower-case names, from a mapping or from pairs; a name that is repeated has its first value."""
    headers: dict[str, str] = {}
    try:
        items: Any = get_attribute(value, "items")
        pairs: Any = items() if callable(items) else value
        for name, text in islice(cast("Any", pairs or ()), _MAX_ITEMS):
            if isinstance(text, bytes):
                text = text.decode("latin-1")
            headers.setdefault(str(name).lower(), str(text))
    except Exception:
        # Not the headers of an answer.
        return headers
    return headers


def _bodies(error: BaseException, response: object) -> Iterator[object]:
    """Yield the decoded body of an answer, as far as it is in memory; before it, details that were taken out of it."""
    for name in ("body", "details"):
        value = get_attribute(error, name)
        if value and isinstance(value, (Mapping, list, str, bytes)):
            yield _decoded(cast("object", value))
            if not isinstance(value, list):
                return
    # `requests` would read the rest of a streamed answer from its socket.
    if response is not None and get_attribute(response, "_content_consumed") is not False:
        yield _decoded(get_attribute(response, "content"))


def _decoded(value: object) -> object:
    if not isinstance(value, str | bytes):
        return value
    if len(value) > _MAX_TEXT:
        return None
    # Imported late: a program without failing answers needs no JSON.
    import json

    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value if isinstance(value, str) else None


def _read_body(answer: Answer, body: object) -> None:
    """Read the codes, the message and the delay of a decoded body."""
    outer: object = body
    if isinstance(body, list):
        # The details of google-api-core; or the body of a streamed answer, in a list of one.
        entries = _list(cast("object", body))
        first = entries[0] if entries else None
        outer = first if "error" in _mapping(first) else {"details": entries}
    whole = _mapping(outer)
    inner = whole.get("error", whole)
    if isinstance(inner, str):
        answer.codes.append(inner)
        answer.message = inner
        return
    error = _mapping(inner)
    details = error.get("details")
    for detail in _list(details):
        _read_detail(answer, detail)
    answer.codes += _values(_mapping(details), ("error_code",))
    for one in _list(error.get("errors")):
        answer.codes += _values(_mapping(one), ("reason",))
    answer.codes += _values(error, ("code", "type", "status"))
    answer.codes += [kind.rpartition("#")[2] for kind in _values(whole, ("__type",))]
    answer.message = _text(error.get("message")) or answer.message
    if (answer.status is None or answer.status < 400) and _is_status(code := error.get("code")):
        # A stream of events whose answer began with 200.
        answer.status = cast("int", code)


def _values(mapping: Mapping[object, object], names: tuple[str, ...]) -> list[str]:
    return [text for name in names if (text := _text(mapping.get(name)))]


def _read_detail(answer: Answer, detail: object) -> None:
    """Read a detail of `google.rpc`: `RetryInfo`, `QuotaFailure` or `ErrorInfo`, as JSON or as a message of protobuf."""

    def read(holder: object, name: str, json_name: str) -> Any:
        found = _mapping(holder)
        return found.get(json_name) if found else get_attribute(holder, name)

    if (delay := _duration(read(detail, "retry_delay", "retryDelay"))) is not None:
        answer.delay = delay
    limits = [read(read(detail, "metadata", "metadata"), "quota_limit", "quota_limit")]
    try:
        violations = list(islice(read(detail, "violations", "violations") or (), _MAX_ITEMS))
    except Exception:
        violations = []
    limits += [read(violation, "quota_id", "quotaId") for violation in violations]
    if any("perday" in _text(limit).lower() for limit in limits):
        answer.codes.append("quota_per_day")
    answer.codes += [text for text in (_text(read(detail, "reason", "reason")),) if text]


def _duration(value: object) -> float | None:
    """Return the seconds of a duration: "13s", an object or a mapping with seconds and nanoseconds, or a timedelta."""
    if isinstance(value, str):
        return parse_duration(value)
    if callable(total := get_attribute(value, "total_seconds")):
        return _number(total())
    found = _mapping(value)
    seconds, nanos = (
        _number(found.get(name, 0) if found else get_attribute(value, name))
        for name in ("seconds", "nanos")
    )
    return None if seconds is None else seconds + (nanos or 0.0) / 1e9


def _read_botocore(answer: Answer, response: Mapping[object, object]) -> None:
    error, metadata = (
        _mapping(response.get(name, response.get(name.lower())))
        for name in ("Error", "ResponseMetadata")
    )
    answer.codes = _values(error, ("Code",))
    answer.message = _text(error.get("Message"))
    answer.headers = lower_headers(metadata.get("HTTPHeaders"))
    status = metadata.get("HTTPStatusCode")
    answer.status = cast("int", status) if _is_status(status) else None


def _read_grpc(answer: Answer, call: object) -> None:
    """Read the status, the metadata and the details of an RPC that failed."""
    code, metadata, details = (
        get_attribute(call, name) for name in ("code", "trailing_metadata", "details")
    )
    if not (callable(code) and callable(metadata)):
        return
    pairs: Any = _called(metadata)
    if isinstance(pairs, Iterable):
        for name, value in islice(cast("Iterable[tuple[object, object]]", pairs), _MAX_ITEMS):
            if name == "grpc-status-details-bin":
                for detail in decode_status(value):
                    _read_detail(answer, detail)
            elif isinstance(value, str):
                answer.headers.setdefault(str(name).lower(), value)
    answer.codes += [name for name in (_text(_called(code)),) if name]
    answer.message = _text(_called(details)) if callable(details) else ""


def _delay(answer: Answer, error: BaseException) -> float | None:
    """Return the most exact of the delays that an answer states."""
    delay = requested_delay(answer.headers)
    if delay is None:
        delay = answer.delay
    if delay is None:
        value = get_attribute(error, "retry_after")
        delay = _number(value)
        if delay is None:
            delay = _duration(value)
    return advised_delay(answer.message) if delay is None and answer.message else delay


def _has_key(error: BaseException, response: object) -> bool:
    """Return whether the request of an answer carried a key."""
    for request in (
        get_attribute(response, "request"),
        get_attribute(error, "request"),
        get_attribute(error, "request_info"),
    ):
        if request is None:
            continue
        if not _KEY_HEADERS.isdisjoint(lower_headers(get_attribute(request, "headers"))):
            return True
        if _KEY_IN_URL.search(str(get_attribute(request, "url"))):
            return True
    return False
