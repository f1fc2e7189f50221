"""`classify`: decides what an error means for the call, for its record and for the run.

An error that comes from a worker may carry the verdict of the worker (`attach_verdict`). Otherwise an error is judged in this order:

1. **A group** by its members: the worst verdict wins, fatal before permanent before throttled before transient. A group fails again if one
   of its members does.
2. **An answer of a service** that the error carries (`_answer`): by its message in a few cases, by the service's code if it is known
   (`_service_codes`), otherwise by its status.
3. **A class that is listed**: programming errors of Python, and errors of clients about their own configuration.
4. **Its cause**, if the error itself says nothing: `raise Failed from error` keeps the verdict of `error`. An implicit `__context__`
   counts only for an error of an unknown class: a connection error raised while handling a 401 may come from another server.
   A cause counts if it carries an answer or is listed for its client. Other causes say nothing: `raise BadAnswer from error`, where `error`
   is a `TypeError`, means that the answer is bad, not the code.
5. Otherwise the error is transient.

A verdict of a class is cached with the class, so that a plain exception costs a look-up and the check that it has no cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from headrace.task._answer import SHAPE, read_answer
from headrace.task._server_delay import is_limit_exhausted, limit_reset
from headrace.task._service_codes import CODES, MESSAGES, STATUSES, Kind, normalize

if TYPE_CHECKING:
    from headrace.task._answer import Answer

    Group = BaseExceptionGroup[BaseException]

PROGRAMMING_ERRORS: tuple[type[Exception], ...] = (
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
)
"""Exceptions that mean a fault of the code, whatever the data: the next call fails like this one.

Not `ValueError`, `LookupError`, `ArithmeticError` and `AssertionError`, nor `RuntimeError` otherwise: many programs raise them for the bad
answer of a model, and the next answer may be good.
"""

KINDS: tuple[Kind, ...] = ("throttled", "transient", "permanent", "fatal")

_ORDER: dict[Kind, int] = {"transient": 0, "throttled": 1, "permanent": 2, "fatal": 3}

_ATTACHED = "_headrace_verdict"

_MAX_CAUSES = 8
_MAX_MEMBERS = 100


@dataclass(frozen=True, slots=True)
class Verdict:
    """The meaning of an error, returned by `classify`.

    Attributes:
        kind: `"throttled"`: the server pushes back, so that every call must wait. `"transient"`: the call may succeed later.
            `"permanent"`: this record fails again. `"fatal"`: every record fails, since a key is refused or a quota exhausted.
        delay: The seconds that the server requires before the next call, or None. Permanent and fatal errors have none.
        reason: A short text for messages, such as "429 of openai, insufficient_quota".
    """

    kind: Kind
    delay: float | None = None
    reason: str = ""


def classify(error: BaseException) -> Verdict:
    """Return whether an error means to wait, to try again, to give the record up, or to stop the run.

        verdict = classify(TimeoutError())
        assert (verdict.kind, verdict.delay) == ("transient", None)

    It knows the errors of httpx, aiohttp, requests, urllib, openai (and Azure), anthropic, google-genai, google-api-core, botocore and grpc
    by their shape. It imports none of them, so errors of all versions, of clients built on these, and unpickled errors are known too.

    - *throttled*: 429 and 529; 503 and 403 with a delay, and 403 if nothing remains of a rate limit; codes such as `ThrottlingException`,
      whatever the status.
    - *fatal*: 401, 402; 403 if the request carried a key; exhausted quotas, such as `insufficient_quota`, although it is a 429, and daily
      quotas of Google; codes of refused keys, such as `ExpiredTokenException`.
    - *permanent*: other 4xx; and `AttributeError`, `ImportError`, `NameError`, `NotImplementedError`, `SyntaxError`, `TypeError`.
    - *transient*: 408, 409, 425, other 5xx, connection errors, timeouts, and all unknown exceptions, including `ValueError` and `KeyError`.

    A service's code wins over the status. The delay is that of `Retry-After` in all spellings, of a `RetryInfo` of Google, of a number in
    the attribute `retry_after`, of the message, or of a throttled answer's rate limit that is reset last.

    An error that says nothing itself has the verdict of its cause, if that is an answer of a service. Of an exception group
    the worst verdict counts: fatal, permanent, throttled, transient. At most 8 causes and 100 members are read.

    Args:
        error: Any exception. If its attributes cannot be read, it is transient.

    *Cost*: about a microsecond for a plain exception; up to fifty for an answer. It reads nothing from a network or a file.
    """
    try:
        return _classify(error, [_MAX_MEMBERS])
    except Exception:
        # An attribute of the error raised, or its class cannot be hashed.
        return Verdict("transient", None, type(error).__name__)


def attach_verdict(error: BaseException, verdict: Verdict) -> None:
    """Attach the verdict of a worker to an error that may have lost, on its way, the attributes that the verdict is based on."""
    if classify(error) != verdict:
        error.__dict__[_ATTACHED] = verdict


def _classify(error: BaseException, budget: list[int], *, is_cause: bool = False) -> Verdict:
    """Return the verdict on an error and its causes.

    Args:
        error: The error.
        budget: A list with the number of members of groups that may still be read.
        is_cause: Whether the error is the cause of another one.
    """
    unknown: Verdict | None = None
    for _ in range(_MAX_CAUSES + 1):
        if (attached := error.__dict__.get(_ATTACHED)) is not None:
            return cast("Verdict", attached)
        known = _known.get(type(error)) or _learn(type(error))
        if known.is_group:
            return _worst(cast("Group", error), budget, is_cause)
        if known.is_shaped or not SHAPE.isdisjoint(error.__dict__):
            verdict = _judge(read_answer(error), known.source)
            if verdict is not None:
                return verdict
        if not known.is_listed:
            unknown = unknown or known.verdict
        elif not (is_cause and known.is_python):
            return known.verdict
        cause = _cause(error, known)
        if cause is None:
            break
        error, is_cause = cause, True
    return unknown or Verdict("transient")


def _cause(error: BaseException, known: _Known) -> BaseException | None:
    """Return the error that explains another one, or None."""
    if error.__cause__ is not None:
        return error.__cause__
    if known.is_transport or error.__suppress_context__:
        return None
    return error.__context__


def _worst(group: Group, budget: list[int], is_cause: bool) -> Verdict:
    """Return the worst verdict on a member; of equal ones that with the longest delay."""
    worst = Verdict("transient", None, type(group).__name__)
    for member in group.exceptions:
        budget[0] -= 1
        if budget[0] < 0:
            break
        verdict = _classify(member, budget, is_cause=is_cause)
        if (_ORDER[verdict.kind], verdict.delay or 0) >= (_ORDER[worst.kind], worst.delay or 0):
            worst = verdict
    return worst


def _judge(answer: Answer, source: str) -> Verdict | None:
    """Return the verdict of an answer; None if it is not the answer of a failed call."""
    kind, code = _by_code(answer)
    status = answer.status
    if kind is None:
        if status is None or status < 400:
            status = next((STATUSES[c] for c in map(normalize, answer.codes) if c in STATUSES), 0)
            code = code or (answer.codes[0] if answer.codes else "")
        kind = _by_status(status, answer)
    if kind is None:
        if answer.delay is None or answer.status is not None:
            return None
        # An error with nothing but a delay, such as an attribute `retry_after`.
        kind = "throttled"
    delay = None
    if kind in ("throttled", "transient"):
        delay = answer.delay
        if delay is None and kind == "throttled":
            delay = limit_reset(answer.headers)
    return Verdict(kind, delay, _reason(answer.status, source, code))


def _by_code(answer: Answer) -> tuple[Kind | None, str]:
    """Return the kind that a message or a code means, and a name for it."""
    if answer.message:
        message = answer.message[:2_000].lower()
        for part, kind, name in MESSAGES:
            if part in message:
                return kind, name
    for code in answer.codes:
        if (found := CODES.get(normalize(code))) is not None:
            return found, code
    return None, answer.codes[0] if answer.codes else ""


def _by_status(status: int, answer: Answer) -> Kind | None:
    if status in (429, 529):
        return "throttled"
    if status in (401, 402):
        return "fatal"
    if status in (403, 503):
        if answer.delay is not None:
            return "throttled"
        if status == 503:
            return "transient"
        if is_limit_exhausted(answer.headers):
            return "throttled"
        return "fatal" if answer.has_key else "permanent"
    if status in (408, 409, 425) or status >= 500:
        return "transient"
    return "permanent" if status >= 400 else None


def _reason(status: int | None, source: str, code: str) -> str:
    subject = source if status is None else f"{status} of {source}"
    # A code is a server's text, and a message must stay short and printable.
    is_short = code and len(code) <= 60 and code.isprintable() and not code.isdigit()
    return f"{subject}, {code}" if is_short else subject


# Errors of clients about their own configuration, by package and class.
_PERMANENT_CLASSES = {
    "aiohttp": "InvalidURL NonHttpUrlClientError TooManyRedirects",
    "botocore": "NoRegionError ParamValidationError UnknownServiceError ValidationError",
    "httpx": "CookieConflict InvalidURL StreamError TooManyRedirects UnsupportedProtocol",
    "httpx2": "CookieConflict InvalidURL StreamError TooManyRedirects UnsupportedProtocol",
    "requests": "InvalidHeader InvalidSchema InvalidURL MissingSchema TooManyRedirects URLRequired",
}
_FATAL_CLASSES = {
    "anthropic": "CredentialsError",
    "botocore": "NoAuthTokenError NoCredentialsError PartialCredentialsError UnauthorizedSSOTokenError",
    "google.auth": "DefaultCredentialsError",
}
_CLASSES: dict[tuple[str, str], Kind] = {}
_LISTS: dict[Kind, dict[str, str]] = {"permanent": _PERMANENT_CLASSES, "fatal": _FATAL_CLASSES}
for _kind, _classes in _LISTS.items():
    for _package_name, _names in _classes.items():
        _CLASSES.update(((_package_name, name), _kind) for name in _names.split())

_CLIENTS = frozenset(
    [
        "aiohttp",
        "anthropic",
        "botocore",
        "google.api_core",
        "google.auth",
        "google.genai",
        "grpc",
        "httpcore",
        "httpcore2",
        "httpx",
        "httpx2",
        "openai",
        "requests",
        "urllib",
        "urllib3",
    ]
)


class _Known:
    """The facts about a class of errors.

    Attributes:
        verdict: The verdict on an error of the class that carries no answer.
        is_listed: Whether that verdict is more than that of an unknown error.
        is_python: Whether it is listed for its base class of Python, not as the error of a client.
        is_group: Whether it is an exception group.
        is_shaped: Whether its class has attributes in which errors carry answers.
        is_transport: Whether it is known to report a failed connection, or comes from a client.
        source: The name of the client or of the class, for messages.
    """

    __slots__ = (
        "is_group",
        "is_listed",
        "is_python",
        "is_shaped",
        "is_transport",
        "source",
        "verdict",
    )

    def __init__(self, cls: type[BaseException]) -> None:
        keys = [(_package(base), base.__name__) for base in cls.__mro__]
        client = next((package for package, _ in keys if package in _CLIENTS), None)
        kind: Kind | None = next((_CLASSES[key] for key in keys if key in _CLASSES), None)
        self.is_python = kind is None
        if kind is None:
            kind = _kind_in_python(cls)
        self.is_listed = kind is not None
        self.is_group = issubclass(cls, BaseExceptionGroup)
        # `__getattr__` may provide any attribute. The `code` of a `SystemExit` is no answer.
        self.is_shaped = issubclass(cls, Exception) and any(
            not SHAPE.isdisjoint(vars(base)) or "__getattr__" in vars(base) for base in cls.__mro__
        )
        self.is_transport = client is not None or issubclass(cls, (OSError, EOFError))
        self.source = client or cls.__name__
        reason = cls.__name__ if client is None else f"{cls.__name__} of {client}"
        self.verdict = Verdict("transient" if kind is None else kind, None, reason)


def _kind_in_python(cls: type[BaseException]) -> Kind | None:
    """Return the kind of a class without regard to clients; None for an unknown one."""
    if issubclass(cls, PROGRAMMING_ERRORS):
        return "permanent"
    if issubclass(cls, Exception):
        return None
    return "fatal" if issubclass(cls, (KeyboardInterrupt, SystemExit)) else "permanent"


def _package(cls: type) -> str:
    first, _, rest = str(cls.__module__).partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "google" else first


_known: WeakKeyDictionary[type[BaseException], _Known] = WeakKeyDictionary()


def _learn(cls: type[BaseException]) -> _Known:
    known = _known[cls] = _Known(cls)
    return known
