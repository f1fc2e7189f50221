"""Operators with many sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace.combiner import Combination
from headrace.pull.base import PullObj

if TYPE_CHECKING:
    from headrace.combiner import OnError
    from headrace.pull.source import Source

__all__ = [
    "PullConcatObj",
    "PullRaceCutoffObj",
    "PullRaceObj",
    "PullRaceRobinObj",
    "PullRoundRobinObj",
    "PullZipObj",
    "combined",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Combined(PullObj[T_co], stock=True):
    """A stream over a combination."""

    def __init__(self, combination: Combination[Any], policy: str, title: str, **options: Any) -> None:
        self._combination = combination
        super().__init__(combination.feed(policy, title, **options))


def combined(combination: Combination[Any], policy: str, title: str) -> PullObj[Any]:
    """A stream that takes from a combination by a policy."""
    return _Combined(combination, policy, title)
