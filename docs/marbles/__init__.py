"""Marble diagrams, drawn from what happened in a run.

A `Scene` says in a few lines what is run: the operator as code, its sources as lines of marbles, its sinks. `play` runs it under the
virtual clock and gives the `Lane`s that came of it, and `draw` makes a picture of them.
"""

from marbles.drawing import draw
from marbles.lane import Lane, Mark
from marbles.scene import Played, Scene, play
from marbles.scenes import SCENES

__all__ = ["SCENES", "Lane", "Mark", "Played", "Scene", "draw", "play"]
