"""Law 14, for whatever pushes: what is no sink is refused where it is given, by the name of its parameter."""

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

# What a constructor wants besides its sinks, by the name of the parameter.
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
    """Those of its constructor; none where that is an exception's."""
    if issubclass(kind, BaseException):
        return {}
    return dict(inspect.signature(kind).parameters)


def of_sinks(name: str) -> list[str]:
    kinds = {one: getattr(headrace, one) for one in EXPORTED}
    classes = {one: kind for one, kind in kinds.items() if isinstance(kind, type)}
    return sorted(one for one, kind in classes.items() if name in parameters(kind))


def with_sinks(kind: Any, name: str, sinks: Any) -> Any:
    """Makes one with these sinks, and with whatever else it wants."""
    arguments = {one: ARGUMENTS[one] for one in parameters(kind) if one in ARGUMENTS}
    if parameters(kind)[name].kind is inspect.Parameter.VAR_POSITIONAL:
        return kind(*arguments.values(), *sinks)
    return kind(**arguments, **{name: sinks})


ONE, MANY = of_sinks("sink"), of_sinks("sinks")


def test_the_classes_are_found() -> None:
    """A sink of anybody's goes into the first, several into the others; the last sinks have none below them."""
    assert set(ONE) > {"PushMapObj", "PushWindowTimeoutObj", "PushSerialObj", "PushPullObj"}
    assert MANY == [
        "PullPushBridgeObj",
        "PullPushDistributeObj",
        "PushDistributeObj",
        "PushForkObj",
        "PushLabeledDistributeObj",
        "PushRoundRobinObj",
    ]
    pushes = {name for name in EXPORTED if name.startswith("Push") and name.endswith("Obj")}
    rest = {"PushObj", "PushPullBufferObj"}
    assert pushes - set(ONE) - set(MANY) == rest


BAD: list[tuple[Any, str]] = [
    (None, r"None \(NoneType\)"),
    (3, r"3 \(int\)"),
    ([], r"\[\] \(list\)"),
    (PushChain.start(), r"<PushChain of 0: nothing yet> \(_?\w+\)"),
    (SourceIterObj([1]), r".*\(SourceIterObj\), which is a pull object"),
    (SinkNullObj, r".*SinkNullObj.* \(type\), which is a class: make one of it"),
]


@pytest.mark.parametrize(("bad", "shown"), BAD)
@pytest.mark.parametrize("name", ONE)
def test_law_14_what_is_no_sink_is_refused(name: str, bad: Any, shown: str) -> None:
    kind = getattr(headrace, name)
    with pytest.raises(TypeError, match=f"^sink must be a push object, got {shown}"):
        with_sinks(kind, "sink", bad)
    made = with_sinks(kind, "sink", SinkNullObj())
    assert isinstance(made, (PushObj, PushPullObj))


@pytest.mark.parametrize(("bad", "shown"), BAD)
@pytest.mark.parametrize("name", MANY)
def test_law_14_what_is_no_sink_is_refused_among_many(name: str, bad: Any, shown: str) -> None:
    kind = getattr(headrace, name)
    sinks: Any = [SinkNullObj(), bad]
    place = r"sinks\[1\]"
    if name == "PushLabeledDistributeObj":
        sinks, place = {"a": SinkNullObj(), "b": bad}, r"sinks\['b'\]"
    with pytest.raises(TypeError, match=f"^{place} must be a push object, got {shown}"):
        with_sinks(kind, "sinks", sinks)


@pytest.mark.parametrize("name", MANY)
def test_law_14_no_sinks_are_too_few(name: str) -> None:
    none: Any = {} if name == "PushLabeledDistributeObj" else []
    with pytest.raises(ValueError, match=r"^sinks must hold at least one push object, got none"):
        with_sinks(getattr(headrace, name), "sinks", none)


ENDS: list[Callable[..., Any]] = [
    PushChain.start().fork,
    PushChain.start().round_robin,
    lambda *sinks: PushChain.start().distribute(lambda _: 0, *sinks),
]


@pytest.mark.parametrize("end", ENDS)
def test_law_14_a_chain_ends_in_sinks(end: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"^sinks must hold at least one push object, got none"):
        end()
    with pytest.raises(TypeError, match=r"^sinks\[1\] must be a push object, got 3 \(int\)"):
        end(SinkNullObj(), 3)
    with pytest.raises(TypeError, match=r"^sink must be a push object, got None \(NoneType\)"):
        PushChain.start().into(wrong(None))
