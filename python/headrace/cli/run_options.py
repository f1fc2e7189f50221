"""`RunOptions`: the limits, the cost of a call, the retries and the timeout of `headrace map`. `main` creates it.

`map` makes the capacity, the options of the runners and the rates of the report from it. `groups` calls only `get_field`.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from headrace.capacity._rate_text import UNITS
from headrace.capacity.limits import AutoRate
from headrace.capacity.node import CapacitySource
from headrace.cli.arguments import most_calls
from headrace.cli.format import format_duration
from headrace.cli.report.series import RateSeries
from headrace.pool.failure_limits import FailureLimits
from headrace.task.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.capacity.limits import AdaptiveLimit, Rate
    from headrace.pool.options import RunnerOptions
    from headrace.task.retry import Classifier


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options that concern the capacity and the runners."""

    limit: int | AdaptiveLimit
    """The maximum number of running calls."""
    rate: Rate | None
    """The maximum number of calls that start in a period; None for no limit."""
    tokens: str | None
    """The field with the number of tokens that a call uses; None if tokens are not counted."""
    token_rate: Rate | None
    """The maximum number of tokens that are used in a period."""
    retries: int
    """The maximum number of retries of a failed record."""
    timeout: float | None
    """The seconds that a call may take; None for no limit."""
    stall_after: float | None = 60.0
    """The seconds without progress after which a call is named on standard error; None for no message."""
    cooldown: bool = True
    """Whether a throttled answer delays all calls."""
    keep_going: bool = False
    """Whether a fatal error stops nothing."""
    max_failures: float | None = None
    """The number of failed records, an int, or their share, a float, beyond which the run stops."""
    retry_budget: float | None = None
    """The maximum number of retries for each record, on average."""

    def capacity(self) -> CapacitySource:
        """Make the capacity that limits all calls."""
        if not self.rates():
            return CapacitySource(self.limit, name="records", cooldown=True)
        return CapacitySource({"slots": self.limit, **self.rates()}, name="records", cooldown=True)

    def rates(self) -> dict[str, Rate]:
        """Return the rates of the capacity, by resource."""
        rates: dict[str, Rate] = {}
        if self.rate is not None:
            rates["calls"] = self.rate
        if self.token_rate is not None:
            rates["tokens"] = self.token_rate
        return rates

    def count_tokens(self, value: Any, *, is_text: bool = False) -> float:
        """Return the number of tokens that a call with this record uses; 0 if tokens are not counted.

        Args:
            value: the record.
            is_text: whether the fields of the record are text, also its numbers.

        Raises:
            ValueError: the record has no valid number of tokens.
        """
        return 0.0 if self.tokens is None else _token_count(value, self.tokens, is_text=is_text)

    def cost(self, tokens: float) -> int | Mapping[str, float]:
        """Return the cost of one attempt that uses `tokens` tokens."""
        if not self.rates():
            return 1
        cost: dict[str, float] = {"slots": 1}
        if self.rate is not None:
            cost["calls"] = 1
        if tokens:
            cost["tokens"] = tokens
        return cost

    def rate_series(self) -> list[RateSeries]:
        """Return the event series that the report shows with their rates."""
        rate_series: list[RateSeries] = []
        if self.rate is not None and not isinstance(self.rate, AutoRate):
            title, note = "Calls per second", "calls started"
            rate_series.append(RateSeries("started", title, note, self.rate.amount / self.rate.per))
        if self.token_rate is not None and not isinstance(self.token_rate, AutoRate):
            title, note = "Tokens per second", "tokens used, as stated in the records"
            rate_series.append(
                RateSeries("tokens", title, note, self.token_rate.amount / self.token_rate.per)
            )
        return rate_series

    def describe(self) -> list[tuple[str, str]]:
        """Return the options that are set, as names and formatted values."""
        most = f"{most_calls(self.limit):,}"
        shown = [("limit", most if isinstance(self.limit, int) else f"auto, at most {most}")]
        if self.rate is not None:
            shown.append(("rate", _format_rate(self.rate)))
        if self.tokens is not None and self.token_rate is not None:
            shown += [("tokens", self.tokens), ("token rate", _format_rate(self.token_rate))]
        if self.retries:
            shown.append(("retries", f"{self.retries:,}"))
        if self.retry_budget is not None:
            shown.append(("retry budget", f"{self.retry_budget:.6g}"))
        if self.max_failures is not None:
            shown.append(("max failures", f"{self.max_failures:.6g}"))
        if self.keep_going:
            shown.append(("fatal errors", "stop nothing"))
        if not self.cooldown:
            shown.append(("cooldown", "off"))
        if self.timeout is not None:
            shown.append(("timeout", format_duration(self.timeout)))
        return shown

    def failure_limits(self) -> FailureLimits:
        """Make the limits on failures, which all runners share."""
        return FailureLimits(
            stops_if_fatal=not self.keep_going,
            max_failures=self.max_failures,
            retry_budget=self.retry_budget,
            noun="record",
        )

    def runner_options(self, classify: Classifier) -> RunnerOptions:
        """Return the options of each runner, besides its limits on failures. `classify` judges each failed call."""
        return {
            "name": "headrace map",
            "timeout": self.timeout,
            "retry": Retry(self.retries, classify=classify),
            "retry_budget": self.retry_budget,
            "cooldown": self.cooldown,
            "stall_after": self.stall_after,
        }


def get_field(value: Any, field: str) -> Any:
    """Return the value of a record's field.

    Raises:
        ValueError: the record has no such field.
    """
    if not isinstance(value, dict):
        raise ValueError(f"the record is not a JSON object, so it has no field {field!r}")
    fields = cast("dict[str, Any]", value)
    if field not in fields:
        raise ValueError(f"the record has no field {field!r}")
    return fields[field]


def _format_rate(rate: Rate) -> str:
    if isinstance(rate, AutoRate):
        return "auto"
    for unit, period in UNITS.items():
        if period == rate.per:
            return f"{rate.amount:,.12g}/{unit}"
    return f"{rate.amount:,.12g} in {format_duration(rate.per)}"


def _token_count(value: Any, field: str, *, is_text: bool) -> float:
    tokens = get_field(value, field)
    if is_text:
        with suppress(ValueError):
            tokens = float(tokens)
    if isinstance(tokens, (int, float)) and not isinstance(tokens, bool) and 0 <= tokens < math.inf:
        return tokens
    raise ValueError(
        f"the field {field!r} must be a number of tokens of at least 0, got {tokens!r}"
    )
