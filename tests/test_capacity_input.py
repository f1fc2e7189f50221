"""Refused input of `CapacitySource`: limits, costs and parents."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from headrace import Budget, CapacitySource, QuotaCapacitySource, Rate
from tests.support import wrong

if TYPE_CHECKING:
    from collections.abc import Callable


NUMBERS = [-1, -0.5, math.nan, math.inf]


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(
    ("parameter", "use"),
    [
        ("limit", CapacitySource),
        ("limit", lambda value: CapacitySource({"slots": value})),
        ("limit", lambda value: CapacitySource(1).resize(value)),
        ("amount", Rate),
        ("per", lambda value: Rate(1, value)),
        ("burst", lambda value: Rate(1, burst=value)),
        ("amount", Budget),
        ("weight", lambda value: CapacitySource(1, weight=value)),
        ("cost", lambda value: CapacitySource(1).acquire(value)),
        ("cost", lambda value: CapacitySource(1).acquire_nowait(value)),
        ("cost", lambda value: CapacitySource(1).acquire_sync(value)),
        ("cost", lambda value: CapacitySource(1).acquire({"slots": value})),
        # None is valid there: the node decides.
        ("seconds", lambda value: CapacitySource(1).cool_down(cast("Any", value or [value]))),
    ],
)
def test_law_14_numbers_must_be_finite_and_not_negative(
    parameter: str, use: Callable[[float], Any], value: float
) -> None:
    with pytest.raises(ValueError, match=rf"{parameter}.* must .*got {value}"):
        use(value)


@pytest.mark.parametrize("value", [10**400, 10**5000, 1e13], ids=["large", "huge", "float"])
@pytest.mark.parametrize(
    ("parameter", "use"),
    [
        ("limit", CapacitySource),
        (r"limit\['slots'\]", lambda value: CapacitySource({"slots": value})),
        ("limit", lambda value: CapacitySource(1).resize(value)),
        ("amount", Rate),
        ("burst", lambda value: Rate(1, burst=value)),
        ("amount", Budget),
        ("cost", lambda value: CapacitySource(1).acquire(value)),
    ],
)
def test_law_14_numbers_must_not_be_too_large(
    parameter: str, use: Callable[[float], Any], value: float
) -> None:
    with pytest.raises(
        ValueError, match=rf"{parameter} must be at most 10\*\*12, got (1000|a huge|<unprintable>)"
    ) as refused:
        use(value)
    assert len(str(refused.value)) < 150
    with pytest.raises(
        ValueError, match=r"per must be from a microsecond to a year, got (1000|a h)"
    ):
        Rate(1, per=value)


@pytest.mark.parametrize("value", [1e-9, 9.9e-7])
@pytest.mark.parametrize(
    ("parameter", "use"),
    [
        ("limit", CapacitySource),
        ("limit", lambda value: CapacitySource(1).resize(value)),
        ("amount", Rate),
        ("burst", lambda value: Rate(1, burst=value)),
        ("amount", Budget),
    ],
)
def test_law_14_amounts_must_not_be_too_small(
    parameter: str, use: Callable[[float], Any], value: float
) -> None:
    with pytest.raises(ValueError, match=rf"{parameter} must be at least a millionth.*got {value}"):
        use(value)


@pytest.mark.parametrize("value", ["3", None, True, [1], object()])
@pytest.mark.parametrize(
    ("parameter", "use"),
    [
        ("limit", CapacitySource),
        ("limit", lambda value: CapacitySource({"slots": value})),
        ("limit", lambda value: CapacitySource(1).resize(value)),
        ("amount", Rate),
        ("per", lambda value: Rate(1, value)),
        ("amount", Budget),
        ("weight", lambda value: CapacitySource(1, weight=value)),
        ("cost", lambda value: CapacitySource(1).acquire(value)),
        ("cost", lambda value: CapacitySource(1).acquire_nowait({"slots": value})),
        ("priority", lambda value: CapacitySource(1).acquire(priority=value)),
        # None is valid there: the node decides.
        ("seconds", lambda value: CapacitySource(1).cool_down(cast("Any", value or [value]))),
    ],
)
def test_law_14_numbers_must_be_numbers(
    parameter: str, use: Callable[[Any], Any], value: Any
) -> None:
    with pytest.raises(TypeError, match=rf"{parameter}.* must be .*got "):
        use(value)


@pytest.mark.parametrize("cost", [0, 0.0, {"slots": 0}, {}, {"slots": 0, "memory": 0}])
def test_cost_must_be_positive(cost: Any) -> None:
    capacity = CapacitySource({"slots": 1, "memory": 1})
    with pytest.raises(ValueError, match="cost must have a positive amount, got "):
        _ = capacity.acquire(cost)
    with pytest.raises(ValueError, match="cost must have a positive amount, got "):
        capacity.acquire_nowait(cost)


def test_unknown_resource_error_lists_known_ones() -> None:
    root = CapacitySource({"slots": 2, "memory": 1})
    leaf = CapacitySource({"tokens": Rate(1)}, root, name="leaf")
    with pytest.raises(
        ValueError,
        match="'gpu' is limited neither by 'leaf' nor above; known there: memory, slots, tokens",
    ):
        _ = leaf.acquire({"slots": 1, "gpu": 1})
    # Known to the tree, but not on this path.
    with pytest.raises(
        ValueError, match=r"'tokens' is limited neither .*; known there: memory, slots"
    ):
        _ = root.acquire({"tokens": 1})
    with pytest.raises(TypeError, match=r"resources of cost must be strings, got 3 \(int\)"):
        _ = root.acquire({wrong(3): 1})


def test_cost_above_the_limit_raises_and_names_node() -> None:
    leaf = CapacitySource(9, CapacitySource(3, name="machine"))
    for use in (leaf.acquire, leaf.acquire_nowait, leaf.acquire_sync):
        with pytest.raises(
            ValueError, match=r"cost of 4 slots can never be granted.*'machine'.* 3"
        ):
            use(4)
    with pytest.raises(ValueError, match="cost of 11 slots"):
        _ = CapacitySource(Rate(60, burst=10)).acquire(11)


def test_parent_must_be_a_capacity_and_no_descendant() -> None:
    with pytest.raises(TypeError, match=r"parent must be a CapacitySource or None, got 3 \(int\)"):
        CapacitySource(1, parent=wrong(3))
    root = CapacitySource(1)
    leaf = CapacitySource(1, root)
    for parent in (leaf, root):
        with pytest.raises(ValueError, match="parent must not be the capacity itself or below it"):
            root.__init__(1, parent)  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="initialised already"):
        root.__init__(1)  # type: ignore[misc]


def test_other_bad_arguments_are_refused() -> None:
    root = CapacitySource(1)
    with pytest.raises(ValueError, match=r"clock .*root"):
        CapacitySource(1, root, clock=time.monotonic)
    with pytest.raises(TypeError, match=r"clock must be callable.*got 3 \(int\)"):
        CapacitySource(1, clock=wrong(3))
    with pytest.raises(TypeError, match=r"name must be a string or None, got 3 \(int\)"):
        CapacitySource(1, name=wrong(3))
    with pytest.raises(ValueError, match="weight must be"):
        CapacitySource(1, weight=0)
    with pytest.raises(ValueError, match="limit must limit at least one resource"):
        CapacitySource({})
    with pytest.raises(TypeError, match="resources of limit must be strings"):
        CapacitySource({wrong(3): 1})
    with pytest.raises(ValueError, match="does not limit 'memory'; it limits 'slots'"):
        root.resize({"memory": 1})
    with pytest.raises(ValueError, match="cannot become"):
        root.resize(Rate(1))
    with pytest.raises(ValueError, match="'slots' must be a Rate or a Budget"):
        QuotaCapacitySource({"slots": wrong(1)})
    with pytest.raises(ValueError, match="'memory'"):
        root.cool_down(1, resource="memory")
    lease = root.acquire_sync()
    with pytest.raises(ValueError, match=r"'memory'.*'slots'"):
        lease.settle(memory=1)
    with pytest.raises(ValueError, match="slots must not be negative"):
        lease.settle(slots=-1)
    lease.release()
