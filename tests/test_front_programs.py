"""The programs of `benches/python/front/` do the same job with headrace and with its peers, and the table of `docs/map.md` counts them."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Programs that are not type-checked.
counting: Any = importlib.import_module("front.count")
job: Any = importlib.import_module("front.job")

TEXTS = [f"text {page}" for page in job.pages]
NAMES = [(library, program) for library in counting.LIBRARIES for program in counting.PROGRAMS]


@pytest.fixture
def loop() -> Iterator[None]:
    """Provide an event loop: streamable would create one and not close it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize(("library", "program"), NAMES)
def test_program_does_the_job(library: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "calls", {})
    monkeypatch.setattr(job, "shown", [])
    if library != "asyncio":
        pytest.importorskip(library)
    module: Any = importlib.import_module(f"front.with_{library}")
    found = getattr(module, program)()
    is_retried = program in ("first", "retry")
    fails = {page for page in job.pages if page % 10 == 7}
    if program == "streaming":
        assert (found, sorted(job.shown)) == (None, sorted(TEXTS))
    elif program == "errors_returned":
        assert len(found) == len(TEXTS)
        for page, (result, text) in enumerate(zip(found, TEXTS, strict=True)):
            if page not in fails:
                assert result == text
            else:
                error = result.error if library == "headrace" else result
                assert repr(error) == f"ConnectionError('page {page} is down')"
        return
    else:
        assert found == TEXTS
    assert job.calls == {page: 1 + (is_retried and page in fails) for page in job.pages}


def test_programs_of_headrace_have_at_most_five_lines() -> None:
    for program in counting.PROGRAMS:
        lines, concepts = counting.count("headrace", program)
        assert 1 <= lines <= 5, program
        assert concepts <= 7, program


def test_lines_and_concepts_are_counted() -> None:
    # tenacity.retry, stop, stop_after_attempt, asyncio.Semaphore, gather, run
    assert counting.count("asyncio", "first") == (8, 6)
    assert counting.count("streamable", "streaming") == (2, 4)


def test_table_of_programs_is_current() -> None:
    page = Path(counting.PAGE).read_text(encoding="utf-8")
    assert counting.MARKED.search(page)
    assert counting.written(page) == page, "run `python benches/python/front/count.py`"
