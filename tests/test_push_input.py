"""Guarantee 14, for push classes: a wrong sink is refused at construction, and the error names its parameter."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import (
    CapacitySource,
    PushChain,
    PushObj,
    PushPullObj,
    SinkNullObj,
    SourceIterObj,
    WaitObject,
)
from tests.support import EXPORTED, wrong

if TYPE_CHECKING:
    from collections.abc import Callable

# Other arguments that a constructor needs, by parameter name.
ARGUMENTS: dict[str, Any] = {
    "transform": str,
    "predicate": bool,
    "reducer": max,
    "size": 2,
    "timeout": 1,
    "condition": bool,
    "selector": lambda _: 0,
    "before": print,
    "source": [1],
    "capacity": CapacitySource(1),
    "wait_obj": WaitObject(),
    "key": None,
}


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class's constructor, or none for an exception."""
    if issubclass(kind, BaseException):
        return {}
    return dict(inspect.signature(kind).parameters)


def classes_with(name: str) -> list[str]:
    kinds = {other: getattr(headrace, other) for other in EXPORTED}
    classes = {other: kind for other, kind in kinds.items() if isinstance(kind, type)}
    return sorted(other for other, kind in classes.items() if name in parameters(kind))


def with_sinks(kind: Any, name: str, sinks: Any) -> Any:
    """Create an object with these sinks and all other required arguments."""
    arguments = {other: ARGUMENTS[other] for other in parameters(kind) if other in ARGUMENTS}
    if parameters(kind)[name].kind is inspect.Parameter.VAR_POSITIONAL:
        return kind(*arguments.values(), *sinks)
    return kind(**arguments, **{name: sinks})


SINGLE, MANY = classes_with("sink"), classes_with("sinks")


def test_classes_are_found() -> None:
    """Classes with one sink and with several are found; the remaining push classes have no sink below them."""
    assert set(SINGLE) > {"PushMapObj", "PushWindowTimeoutObj", "PushSerialObj", "PushPullObj"}
    assert MANY == [
        "PullPushBridgeObj",
        "PullPushDistributeObj",
        "PushDistributeObj",
        "PushForkObj",
        "PushLabeledDistributeObj",
        "PushRoundRobinObj",
    ]
    pushes = {name for name in EXPORTED if name.startswith("Push") and name.endswith("Obj")}
    neither = {"PushObj", "PushPullBufferObj"}
    assert pushes - set(SINGLE) - set(MANY) == neither


BAD: list[tuple[Any, str]] = [
    (None, r"None \(NoneType\)"),
    (3, r"3 \(int\)"),
    ([], r"\[\] \(list\)"),
    (PushChain.start(), r"<PushChain of 0: nothing yet> \(_?\w+\)"),
    (SourceIterObj([1]), r".*\(SourceIterObj\), which is a pull object"),
    (SinkNullObj, r".*SinkNullObj.* \(type\), which is a class: make one of it"),
]


@pytest.mark.parametrize(("bad", "described"), BAD)
@pytest.mark.parametrize("name", SINGLE)
def test_law_14_non_sink_is_refused(name: str, bad: Any, described: str) -> None:
    kind = getattr(headrace, name)
    with pytest.raises(TypeError, match=f"^sink must be a push object, got {described}"):
        with_sinks(kind, "sink", bad)
    made = with_sinks(kind, "sink", SinkNullObj())
    assert isinstance(made, (PushObj, PushPullObj))


@pytest.mark.parametrize(("bad", "described"), BAD)
@pytest.mark.parametrize("name", MANY)
def test_law_14_non_sink_among_several_is_refused(name: str, bad: Any, described: str) -> None:
    kind = getattr(headrace, name)
    sinks: Any = [SinkNullObj(), bad]
    parameter = r"sinks\[1\]"
    if name == "PushLabeledDistributeObj":
        sinks, parameter = {"a": SinkNullObj(), "b": bad}, r"sinks\['b'\]"
    with pytest.raises(TypeError, match=f"^{parameter} must be a push object, got {described}"):
        with_sinks(kind, "sinks", sinks)


@pytest.mark.parametrize("name", MANY)
def test_law_14_empty_sinks_are_refused(name: str) -> None:
    none: Any = {} if name == "PushLabeledDistributeObj" else []
    with pytest.raises(ValueError, match=r"^sinks must hold at least one push object, got none"):
        with_sinks(getattr(headrace, name), "sinks", none)


ENDS: list[Callable[..., Any]] = [
    PushChain.start().fork,
    PushChain.start().round_robin,
    lambda *sinks: PushChain.start().distribute(lambda _: 0, *sinks),
]


@pytest.mark.parametrize("end", ENDS)
def test_law_14_chain_end_checks_its_sinks(end: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"^sinks must hold at least one push object, got none"):
        end()
    with pytest.raises(TypeError, match=r"^sinks\[1\] must be a push object, got 3 \(int\)"):
        end(SinkNullObj(), 3)
    with pytest.raises(TypeError, match=r"^sink must be a push object, got None \(NoneType\)"):
        PushChain.start().into(wrong(None))
