"""Scenes of the operators that make one stream of many, or many of one."""

from __future__ import annotations

from marbles.fixtures import Source
from marbles.scene import Scene

__all__ = ["MERGE"]

NUMBERS_AND_LETTERS = {"a": Source("--123--|"), "b": Source("x-----y--z|")}
LABELED = {"a": Source("--12|"), "b": Source("x----y|")}

MERGE = (
    Scene("PullConcatObj(a, b)", given={"a": Source("1-2|"), "b": Source("x-y|")}),
    Scene("PullZipObj(a, b)", given=NUMBERS_AND_LETTERS),
    Scene("PullZipObj(a, b, longest=True)", given={"a": Source("1-2|"), "b": Source("x-y-z|")}),
    Scene("PullRoundRobinObj(a, b)", given=NUMBERS_AND_LETTERS),
    Scene("PullRaceObj(a, b)", given=NUMBERS_AND_LETTERS),
    Scene(
        "PullRaceRobinObj(a, b)",
        given=NUMBERS_AND_LETTERS,
        says="No source is a round ahead of another.",
    ),
    Scene(
        "PullRaceCutoffObj(source, stop)",
        given={"source": Source("1-2-3-4|"), "stop": Source("-----x|")},
    ),
    Scene("PullLabeledZipObj({'p': a, 'q': b})", given=LABELED),
    Scene(
        "PullLabeledRoundRobinObj({'p': a, 'q': b})",
        given=LABELED,
    ),
    Scene(
        "PullLabeledRaceObj({'p': a, 'q': b})",
        given=LABELED,
    ),
    Scene(
        "PullLabeledRaceRobinObj({'p': a, 'q': b})",
        given=LABELED,
    ),
)
