"""What records are called under: the capacity, what a call costs, and what it means that one fails or takes too long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from headrace.capacity.node import CapacitySource
from headrace.cli.arguments import UNITS
from headrace.cli.format import seconds_in_words
from headrace.cli.record_error import UnretriedError
from headrace.cli.report.series import Flow
from headrace.task.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.capacity.limits import Rate
    from headrace.pool.options import RunnerOptions


@dataclass(frozen=True, slots=True)
class Terms:
    """What the command line asks of the pool."""

    limit: int
    """How many calls may run at once."""
    rate: Rate | None
    """How many may be made in what time."""
    tokens: str | None
    """The field that says how many tokens a call is going to take; None if they are not counted."""
    token_rate: Rate | None
    """How many tokens may be taken in what time."""
    retries: int
    """How often a record that fails is called again."""
    timeout: float | None
    """How many seconds a call may take; None for any time."""

    def capacity(self) -> CapacitySource:
        """The capacity that everything runs under."""
        if not self.rates():
            return CapacitySource(self.limit, name="records")
        return CapacitySource({"slots": self.limit, **self.rates()}, name="records")

    def rates(self) -> dict[str, Rate]:
        """Its resources that are no slots."""
        rates: dict[str, Rate] = {}
        if self.rate is not None:
            rates["calls"] = self.rate
        if self.token_rate is not None:
            rates["tokens"] = self.token_rate
        return rates

    def tokens_of(self, value: Any) -> float:
        """How many tokens the call of a record is going to take; 0 if they are not counted.

        Raises:
            ValueError: it does not say.
        """
        return 0.0 if self.tokens is None else _tokens(value, self.tokens)

    def cost(self, tokens: float) -> int | Mapping[str, float]:
        """What a call that takes so many tokens costs, each time."""
        if not self.rates():
            return 1
        cost: dict[str, float] = {"slots": 1}
        if self.rate is not None:
            cost["calls"] = 1
        if tokens:
            cost["tokens"] = tokens
        return cost

    def flows(self) -> list[Flow]:
        """What a report shows beside the rates."""
        flows: list[Flow] = []
        if self.rate is not None:
            title, note = "Calls a second", "calls that were made"
            flows.append(Flow("begun", title, note, self.rate.amount / self.rate.per))
        if self.token_rate is not None:
            title, note = "Tokens a second", "tokens that calls took, as the records say"
            flows.append(Flow("tokens", title, note, self.token_rate.amount / self.token_rate.per))
        return flows

    def listed(self) -> list[tuple[str, str]]:
        """What was asked for, in words."""
        asked = [("limit", f"{self.limit:,}")]
        if self.rate is not None:
            asked.append(("rate", _rate_in_words(self.rate)))
        if self.tokens is not None and self.token_rate is not None:
            asked += [("tokens", self.tokens), ("token rate", _rate_in_words(self.token_rate))]
        if self.retries:
            asked.append(("retries", f"{self.retries:,}"))
        if self.timeout is not None:
            asked.append(("timeout", seconds_in_words(self.timeout)))
        return asked

    def runner_options(self) -> RunnerOptions:
        """What every runner is told."""
        retry = None
        if self.retries:
            retry = Retry(self.retries, _may_be_retried, retry_after=_asked_delay)
        return {"name": "headrace map", "timeout": self.timeout, "retry": retry}


def field_of(value: Any, field: str) -> Any:
    """The value of a record's field.

    Raises:
        ValueError: it has no such field.
    """
    if not isinstance(value, dict):
        msg = f"the record is no object, and has no field {field!r}"
        raise ValueError(msg)
    fields = cast("dict[str, Any]", value)
    if field not in fields:
        msg = f"the record has no field {field!r}"
        raise ValueError(msg)
    return fields[field]


def _rate_in_words(rate: Rate) -> str:
    for unit, period in UNITS.items():
        if period == rate.per:
            return f"{rate.amount:,.12g}/{unit}"
    return f"{rate.amount:,.12g} in {seconds_in_words(rate.per)}"


def _tokens(value: Any, field: str) -> float:
    tokens = field_of(value, field)
    if isinstance(tokens, (int, float)) and not isinstance(tokens, bool) and 0 <= tokens < math.inf:
        return tokens
    msg = f"the field {field!r} must be a number of tokens from 0, got {tokens!r}"
    raise ValueError(msg)


def _may_be_retried(error: Exception) -> bool:
    return not isinstance(error, UnretriedError)


def _asked_delay(error: Exception) -> float | None:
    """The seconds that an error asks for itself, in its attribute `retry_after`."""
    try:
        asked = getattr(error, "retry_after", None)
    except Exception:
        # A property, which fails. It is the error of the call that counts.
        return None
    if isinstance(asked, (int, float)) and not isinstance(asked, bool) and 0 <= asked < math.inf:
        return asked
    return None
