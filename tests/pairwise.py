"""A small covering array: rows of options in which each pair of values of two options occurs."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Row", "pairs_of", "pairwise_rows"]

Row = dict[str, Any]
"""A value for each option."""

Choice = tuple[str, int]
"""An option and the index of its value."""


def pairs_of(table: Mapping[str, Sequence[Any]]) -> list[tuple[Choice, Choice]]:
    """Return all pairs of values of two options, in the order of the table."""
    return [
        ((first, i), (second, j))
        for first, second in combinations(table, 2)
        for i in range(len(table[first]))
        for j in range(len(table[second]))
    ]


def pairwise_rows(table: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Return few rows that contain each pair of values of two options, the same rows in each call.

    Each row starts with the first pair that no row has yet. Its other values are chosen one by one, each as the value
    that adds most of the missing pairs.

    Args:
        table: The values of each option.
    """
    pairs = pairs_of(table)
    missing = set(pairs)
    rows: list[Row] = []
    while missing:
        chosen = dict(next(pair for pair in pairs if pair in missing))
        for name, values in table.items():
            if name not in chosen:
                added = [
                    len(missing & _pairs_with(table, chosen, (name, index)))
                    for index in range(len(values))
                ]
                # Rotated, so that equally good values take turns.
                start = len(rows) % len(values)
                order = [*range(start, len(values)), *range(start)]
                chosen[name] = max(order, key=added.__getitem__)
        for choice in chosen.items():
            missing -= _pairs_with(table, chosen, choice)
        rows.append({name: table[name][chosen[name]] for name in table})
    return rows


def _pairs_with(
    table: Mapping[str, Sequence[Any]], chosen: Mapping[str, int], choice: Choice
) -> set[tuple[Choice, Choice]]:
    """Return the pairs of a value with the values of other options, in the order of the table."""
    pairs: set[tuple[Choice, Choice]] = set()
    is_before = True
    for name in table:
        if name == choice[0]:
            is_before = False
        elif name in chosen:
            other = (name, chosen[name])
            pairs.add((other, choice) if is_before else (choice, other))
    return pairs
