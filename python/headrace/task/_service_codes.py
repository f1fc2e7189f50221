"""The error codes of services. Each maps to a kind of `Verdict` (`CODES`) or to an HTTP status (`STATUSES`). `failure` uses them.

A code is compared without regard to case and separators, so `RATE_LIMIT_EXCEEDED`, `rateLimitExceeded` and `rate_limit_exceeded` are one.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["throttled", "transient", "permanent", "fatal"]

_THROTTLED = """
rate_limit_exceeded rate_limit_error slow_down
overloaded_error
RateLimitReached TooManyRequests
RESOURCE_EXHAUSTED userRateLimitExceeded
Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException TooManyRequestsException
ProvisionedThroughputExceededException RequestLimitExceeded BandwidthLimitExceeded LimitExceededException
EC2ThrottledException TransactionInProgressException
"""

_TRANSIENT = """
CANCELLED
RequestTimeout RequestTimeoutException PriorRequestNotComplete
ModelNotReadyException ModelTimeoutException ModelErrorException ModelStreamErrorException
"""

# S3 answers `AccessDenied` for one object, also for one that does not exist; that says nothing about the other objects.
_PERMANENT = """
AccessDenied
"""

_FATAL = """
insufficient_quota billing_hard_limit_reached billing_not_active account_deactivated invalid_api_key
authentication_error permission_error billing_error
quota_per_day quotaExceeded dailyLimitExceeded
UNAUTHENTICATED PERMISSION_DENIED API_KEY_INVALID API_KEY_SERVICE_BLOCKED ACCESS_TOKEN_EXPIRED BILLING_DISABLED SERVICE_DISABLED
CONSUMER_SUSPENDED
ServiceQuotaExceeded ServiceQuotaExceededException ExpiredToken ExpiredTokenException InvalidToken UnrecognizedClientException
InvalidClientTokenId InvalidAccessKeyId InvalidSignatureException SignatureDoesNotMatch MissingAuthenticationToken
MissingAuthenticationTokenException IncompleteSignature AuthFailure AccessDeniedException OptInRequired SubscriptionRequiredException
RequestTimeTooSkewed
"""

# Codes that say less than the status. They count where there is no status of an error, as in the middle of a stream of events.
_STATUSES: dict[str, int] = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "not_found_error": 404,
    "request_too_large": 413,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "ValidationException": 400,
    "ResourceNotFoundException": 404,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 400,  # not 409, which is transient: the entity still exists at the next call
    "UNIMPLEMENTED": 400,
    "DATA_LOSS": 400,
    "ABORTED": 409,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

# Answers whose code means another error: a part of the message in lower case, the kind, and the reason.
MESSAGES: tuple[tuple[str, Kind, str], ...] = (
    ("credit balance is too low", "fatal", "credit balance is too low"),  # anthropic, a 400
    ("specified api usage limits", "fatal", "usage limit reached"),  # anthropic, a 400
    ("request too large for", "permanent", "request larger than the limit"),  # openai, a 429
    (
        "message larger than max",
        "permanent",
        "message larger than the limit",
    ),  # grpc, RESOURCE_EXHAUSTED
)


def normalize(code: str) -> str:
    """Return a code without case and separators."""
    return code.lower().replace("_", "").replace("-", "")


CODES: dict[str, Kind] = {}
"""The codes that win over the status, normalized."""
_LISTS: dict[Kind, str] = {
    "throttled": _THROTTLED,
    "transient": _TRANSIENT,
    "permanent": _PERMANENT,
    "fatal": _FATAL,
}
for _kind, _names in _LISTS.items():
    CODES.update(dict.fromkeys(map(normalize, _names.split()), _kind))

STATUSES = {normalize(_code): _status for _code, _status in _STATUSES.items()}
"""The codes that stand for a status where there is none, normalized."""
