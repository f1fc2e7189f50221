"""Merging streams with labels."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    PullLabeledRaceObj,
    PullLabeledRaceRobinObj,
    PullLabeledRoundRobinObj,
    PullLabeledZipObj,
    PullObj,
    PushPullBufferObj,
    SourceIterObj,
)
from tests.merge_sources import ready, slow
from tests.support import collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_labelled_merges_yield_labels() -> None:
    def sources() -> dict[str, Any]:
        return {"x": [1, 2], "y": ready("ab"), "z": slow("AB")}

    assert await collect(PullLabeledZipObj(sources())) == [
        (("x", 1), ("y", "a"), ("z", "A")),
        (("x", 2), ("y", "b"), ("z", "B")),
    ]
    interleaved = [("x", 1), ("y", "a"), ("z", "A"), ("x", 2), ("y", "b"), ("z", "B")]
    assert await collect(PullLabeledRoundRobinObj(sources())) == interleaved
    assert await collect(PullLabeledRaceRobinObj(sources())) == interleaved
    assert sorted(map(str, await collect(PullLabeledRaceObj(sources())))) == sorted(
        map(str, interleaved)
    )
    assert await collect(PullLabeledZipObj({"x": [], "y": "a"}, longest=True, fill=0)) == [
        (("x", 0), ("y", "a"))
    ]


async def test_labelled_methods_put_the_stream_first() -> None:
    def stream() -> PullObj[int]:
        return SourceIterObj([1, 2]).map(lambda n: n)

    interleaved = [("x", 1), (0, "a"), ("x", 2), (0, "b"), (0, "c")]
    abc: dict[object, Any] = {0: "abc"}
    assert await collect(stream().round_robin_labeled("x", abc)) == interleaved
    assert await collect(stream().merge_labeled("x", abc, fair=True)) == interleaved
    assert isinstance(stream().merge_labeled("x", abc, fair=True), PullLabeledRaceRobinObj)
    race = stream().merge_labeled("x", {**abc, None: slow("d")}, prefetch=2, errors="skip")
    assert isinstance(race, PullLabeledRaceObj)
    assert race.sources.keys() == {"x", 0, None}
    assert Counter(await collect(race)) == Counter([*interleaved, (None, "d")])
    assert await collect(stream().zip_labeled("x", abc)) == [
        (("x", 1), (0, "a")),
        (("x", 2), (0, "b")),
    ]
    rows = await collect(stream().zip_labeled("x", abc, longest=True, fill="-"))
    assert rows[2] == (("x", "-"), (0, "c"))
    strict = stream().zip_labeled("x", abc, strict=True)
    with pytest.raises(ValueError, match="ended"):
        await collect(strict)
    assert await collect(stream().merge_labeled("x", {})) == [("x", 1), ("x", 2)]


@pytest.mark.parametrize("name", ["zip", "round_robin", "merge"])
def test_law_14_bad_labels_are_refused(name: str) -> None:
    labelled = getattr(SourceIterObj([1]), f"{name}_labeled")
    with pytest.raises(TypeError, match=r"others must be a mapping of labels .*, got \[2\] \(list"):
        labelled("a", [2])
    with pytest.raises(ValueError, match="label must not be one of others, got 'a'; give each"):
        labelled("a", {"b": [1], "a": [2]})
    with pytest.raises(TypeError, match=r"label must be hashable, got \[\] \(list\)"):
        labelled([], {"a": [2]})
    with pytest.raises(TypeError, match=r"sources\['b'\] must be an iterable .*, not 3"):
        labelled("a", {"b": 3})
    with pytest.raises(ValueError, match="prefetch must be at least 1"):
        labelled("a", {"b": [1]}, prefetch=0)


async def test_none_is_a_valid_label() -> None:
    sources: dict[int | None, Any] = {None: [1], 1: slow("a")}
    async with PullLabeledRaceObj(sources) as race:
        assert list(race.sources) == [None, 1]
        assert await collect(race) == [(None, 1), (1, "a")]
    stream = PullLabeledRoundRobinObj[int | None, int]({0: [1]})
    stream.add(None, [2])
    assert await collect(stream) == [(0, 1), (None, 2)]


async def test_labelled_error_names_its_label() -> None:
    async def fails() -> AsyncIterator[int]:
        for _ in range(1):
            raise ValueError
        yield 1

    async with PullLabeledRaceObj({"left": fails()}) as race:
        with pytest.raises(ValueError) as raised:
            await anext(race)
    [note] = raised.value.__notes__
    assert note.startswith("raised by source 'left' of PullLabeledRaceObj, test_labelled_error")


async def test_labelled_sources_are_live() -> None:
    buffer: PushPullBufferObj[int] = PushPullBufferObj()
    race = PullLabeledRaceObj({"a": buffer.source})
    race.add("b", [1])
    assert await anext(race) == ("b", 1)
    with pytest.raises(ValueError, match="label is taken already, got 'a'"):
        race.add("a", [2])
    with pytest.raises(KeyError):
        await race.remove("c")
    await race.remove("a")
    assert await collect(race) == []
    with pytest.raises(ClosedError):
        race.add("c", [1])
