"""Draw marble diagrams from real runs.

A `Scene` defines a run in a few lines: the operator as code, its sources as marble strings, its sinks. `play` runs it under the
virtual clock and returns the recorded `Track`s, and `draw` renders them as a picture.
"""

from marbles.drawing import draw
from marbles.scene import Played, Scene, play
from marbles.scenes import SCENES
from marbles.track import Mark, Track

__all__ = ["SCENES", "Mark", "Played", "Scene", "Track", "draw", "play"]
