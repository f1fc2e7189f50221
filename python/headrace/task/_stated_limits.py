"""`stated_limits`: the rate limits that an answer of a server states in its headers. The native core calls it for `Rate.auto()`.

| service | headers |
|---|---|
| OpenAI and others | `x-ratelimit-limit-requests`, `-remaining-requests`, `-reset-requests`; the same for `tokens` |
| Anthropic | `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset`; the same for `tokens`, `input-tokens`, `output-tokens` |
| generic | `x-ratelimit-limit`, `-remaining`, `-reset`; also `x-rate-limit-` and `ratelimit-` |
| IETF | `ratelimit: limit=100, remaining=50, reset=5`, and `ratelimit: "name";r=50;t=5` with `ratelimit-policy: "name";q=100` |
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, TypeAlias

from headrace.task._answer import lower_headers, read_answer
from headrace.task._server_delay import parse_delay, parse_number

if TYPE_CHECKING:
    from collections.abc import Sequence

Stated: TypeAlias = tuple[float, float, float]
"""The limit, infinite if it is not stated; the rest of it; the seconds until all of it is restored."""

_NAME = re.compile(
    r"(?:x-)?rate-?limit-(limit|remaining|reset)(?:-(.+))?|[a-z]+-ratelimit-(.+)-(limit|remaining|reset)"
)
_FIELD = re.compile(r'(?:^|[,;])\s*(limit|remaining|reset|[rtq])\s*=\s*"?(\d{1,15})')
_SHORT = {"r": "remaining", "t": "reset", "q": "limit"}
_WORDS = re.compile(r"[^a-z0-9]+")
_LONGEST = 400


def stated_limits(
    resources: Sequence[str], headers: object, error: BaseException | None
) -> list[Stated | None]:
    """Return the limit that an answer states for each resource.

    A resource takes the limits of its own name. Without any, one whose name contains "token" takes all limits of tokens, and any
    other resource those that are not of tokens. Of several limits, the one that allows the least rate counts.

    Args:
        resources: The names of the resources.
        headers: The headers of the answer; None to read those that the error carries.
        error: The error of the call.
    """
    lower = (
        lower_headers(headers)
        if headers is not None
        else {}
        if error is None
        else read_answer(error).headers
    )
    families = _families(lower)
    return [_find(resource, families) for resource in resources] if families else [None for _ in resources]  # fmt: skip


def _families(headers: dict[str, str]) -> dict[str, Stated]:
    """Return the stated limits by the unit in their names, which is empty for generic headers."""
    found: dict[str, dict[str, float]] = {}
    for name, text in headers.items():
        if "rate" not in name:
            continue
        if name in ("ratelimit", "ratelimit-policy"):
            for key, value in _FIELD.findall(text[:_LONGEST]):
                found.setdefault("", {}).setdefault(str(_SHORT.get(key, key)), float(value))
            continue
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        kind = match[1] or match[4] or ""
        number = (
            parse_delay(text, headers) if kind == "reset" else parse_number(text.partition(",")[0])
        )
        if number is not None and number >= 0:
            found.setdefault(match[2] or match[3] or "", {})[kind] = number
    return {
        unit: (
            # A limit that is below its rest is not the limit of this rest.
            max(fields.get("limit", math.inf), fields["remaining"]),
            fields["remaining"],
            fields["reset"],
        )
        for unit, fields in found.items()
        if "remaining" in fields and "reset" in fields
    }


def _find(resource: str, families: dict[str, Stated]) -> Stated | None:
    name = _WORDS.sub("-", resource.lower())
    if (own := families.get(name)) is not None:
        return own
    is_tokens = "token" in name
    limits = [stated for unit, stated in families.items() if ("token" in unit) is is_tokens]
    return min(limits, key=_rate, default=None)


def _rate(stated: Stated) -> float:
    _, remaining, reset = stated
    return remaining / reset if reset else math.inf
