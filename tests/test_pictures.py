"""Every operator has a picture, and each picture is generated from a run."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from marbles import SCENES, Scene, draw, play
from marbles.fixtures import Sink, Source
from pictures import FOLDER, TARGET, document, pictures
from tests.support import OPERATORS

SCENE_PARAMS = [
    pytest.param(scene, id=f"{scene.operator}-{number}") for number, scene in enumerate(SCENES)
]


def test_every_operator_has_a_picture() -> None:
    covered = {scene.operator for scene in SCENES}
    missing = [kind.__name__ for kind in OPERATORS if kind.__name__ not in covered]
    assert not missing, "add a Scene for each in docs/marbles/, then run `make docs`"


def test_pictures_match_their_runs() -> None:
    drawn = pictures()
    played = {file: scene for of in drawn.values() for file, scene in of}
    assert {file.name for file in FOLDER.iterdir()} == set(played), "run `make docs`"
    for file, scene in played.items():
        assert (FOLDER / file).read_text(encoding="utf-8") == draw(scene), (
            f"{file}: run `make docs`"
        )
    page = document(drawn)
    assert TARGET.read_text(encoding="utf-8") == page, "run `make docs`"
    for file in played:
        assert f"({FOLDER.name}/{file})" in page, f"no page shows {file}: its module has no section"


@pytest.mark.parametrize("scene", SCENE_PARAMS)
def test_elements_lie_within_the_picture(scene: Scene) -> None:
    svg = ET.fromstring(draw(play(scene)))  # noqa: S314
    width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
    for element in svg.iter():
        if "x" in element.attrib:
            x, y = float(element.attrib["x"]), float(element.attrib["y"])
            assert 0 <= x <= x + float(element.attrib.get("width", 0)) <= width
            assert 0 <= y <= y + float(element.attrib.get("height", 0)) <= height


def test_picture_shows_pulled_and_unpulled_items() -> None:
    played = play(Scene("PullTakeObj(source, 1)", given={"source": Source("-a--b|")}))
    assert played.lines() == "source: -a; pulled: -(a |)"
    assert [mark.text for mark in played.above[0].marks] == ["a", "b"]
    svg = draw(played)
    assert svg.count('class="u"') == 1  # b, dashed
    assert svg.count('class="e"') == 1  # the end of the pulled stream
    assert svg.count('class="a"') == 0  # no line continues


def test_picture_shows_a_waiting_push_and_its_end() -> None:
    scene = Scene("PushMapObj(sink, str.upper)", given={"sink": Sink(takes=2)}, pushed="(a b)---#")
    played = play(scene)
    assert played.lines() == "pushed: a-b-#; sink: A-B-#"
    assert 'class="x"' in draw(played)


def test_failing_code_draws_nothing() -> None:
    with pytest.raises(ValueError, match="size"):
        play(Scene("PullTakeObj(source, -1)", given={"source": Source("a|")}))
