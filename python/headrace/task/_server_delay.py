"""The delay that a server requires: all spellings of `Retry-After`, and resets of rate limits. `_answer` reads it.

Headers are given as a dictionary with lower-case names. A delay is in seconds, finite and not negative; None means that there is
none, or none that can be read. A date is relative to the header `Date` of the same answer, which needs no synchronised clocks;
without one, to the wall clock.
"""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms", "grpc-retry-pushback-ms")

# Each digit has one way to match, and texts are short: the time does not depend on a hostile server.
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|ns|d|h|m|s)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_MAX_LENGTH = 40
_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}  # fmt: skip

# "Please try again in 6m0s.", "Please retry after 26 seconds.", "Please retry in 38.6s."
_ADVICE = re.compile(
    r"(?:try again|retry) (?:in|after) ((?:\d{1,12}(?:\.\d{0,12})?(?:ms|[dhms])){1,4}|\d{1,12}(?:\.\d{0,12})?(?= sec| milli))( milli)?",
    re.ASCII | re.IGNORECASE,
)

_EPOCH = 1e9
"""A number of seconds from here on is a time since 1970, not a delay: it would be 31 years."""


def requested_delay(headers: Mapping[str, str]) -> float | None:
    """Return the delay that a server states for the next request."""
    for name in _MILLISECONDS:
        if (text := headers.get(name)) is not None:
            delay = parse_number(text)
            if delay is not None and delay >= 0:
                return delay / 1000
    text = headers.get("retry-after")
    return None if text is None else parse_delay(text, headers)


def limit_reset(headers: Mapping[str, str]) -> float | None:
    """Return the time until the rate limits in the headers are reset.

    It is the reset of the limit of which nothing remains, otherwise the latest reset. A daily limit counts only if nothing
    remains of it.
    """
    exhausted: list[float] = []
    others: list[float] = []
    for name, text in headers.items():
        if "ratelimit" not in name or "reset" not in name:
            continue
        delay = parse_delay(text, headers)
        if not delay:
            # A limit that is reset already is not the one that refused the call.
            continue
        if parse_number(headers.get(name.replace("reset", "remaining"), "")) == 0:
            exhausted.append(delay)
        elif not name.endswith("-day"):
            others.append(delay)
    return max(exhausted or others, default=None)


def is_limit_exhausted(headers: Mapping[str, str]) -> bool:
    """Return whether the headers name a rate limit of which nothing remains."""
    return any(
        "ratelimit" in name and "remaining" in name and parse_number(text) == 0
        for name, text in headers.items()
    )


def advised_delay(message: str) -> float | None:
    """Return the delay in a message such as "Please try again in 1.2s."."""
    found = _ADVICE.search(message, 0, 2_000)
    if found is None:
        return None
    delay = parse_duration(found[1])
    return delay / 1000 if delay is not None and found[2] else delay


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration such as `1h2m3.5s`, `250ms` or `13`."""
    number = parse_number(text)
    if number is not None:
        return number if number >= 0 else None
    text = text.strip()
    if len(text) > _MAX_LENGTH:
        return None
    parts = _PART.findall(text)
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        return None
    return _finite(sum(float(amount) * _UNITS[unit] for amount, unit in parts))


def parse_delay(text: str, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the time that a header names: a number, a duration, or a date."""
    number = parse_number(text)
    if number is None:
        delay = parse_duration(text)
        if delay is not None:
            return delay
        number = _timestamp(text)
    elif number < _EPOCH:
        return max(0.0, number)
    elif number >= _EPOCH * 1000:
        number /= 1000  # Milliseconds since 1970.
    if number is None:
        return None
    sent = _timestamp(headers.get("date", ""))
    return max(0.0, number - (time.time() if sent is None else sent))


def parse_number(text: str) -> float | None:
    text = text.strip()
    return _finite(float(text)) if len(text) <= _MAX_LENGTH and _NUMBER.fullmatch(text) else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _timestamp(text: str) -> float | None:
    """Return the seconds since 1970 of an HTTP date or an RFC 3339 date."""
    if not text or len(text) > _MAX_LENGTH:
        return None
    # Imported late: few answers have a date, and these modules load many others.
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = parse(text.strip())
            # A date without a time zone is in UTC, in both formats.
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
