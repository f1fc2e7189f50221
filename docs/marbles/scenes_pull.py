"""Scenes of the operators that pull from one source."""

from __future__ import annotations

import asyncio

from headrace import SKIP, CapacitySource
from marbles.fixtures import Called, Held, Signal, Source
from marbles.scene import Scene

__all__ = ["PULL"]


async def fetch(page: int) -> str:
    """Return a page, slowly for the first one."""
    await asyncio.sleep(4 if page == 1 else 1)
    return "ABC"[page - 1]


PULL = (
    Scene("PullMapObj(source, lambda n: n * 10)", given={"source": Source("1-2-3|")}),
    Scene(
        "PullMapObj(source, fetch)",
        given={"source": Source("123|"), "fetch": fetch},
        says="fetch takes 4 s for 1, and 1 s for 2 and 3. One call at a time.",
    ),
    Scene(
        "PullMapObj(source, fetch, concurrency=2)",
        given={"source": Source("123|"), "fetch": fetch},
        says="fetch takes 4 s for 1, and 1 s for 2 and 3. The order is kept.",
    ),
    Scene(
        "PullMapObj(source, fetch, concurrency=2, ordered=False)",
        given={"source": Source("123|"), "fetch": fetch},
        says="fetch takes 4 s for 1, and 1 s for 2 and 3.",
    ),
    Scene(
        "PullMapPoolObj(source, fetch, CapacitySource(2))",
        given={"source": Source("123|"), "fetch": fetch, "CapacitySource": CapacitySource},
        says="fetch takes 4 s for 1, and 1 s for 2 and 3. Other users of the capacity share it.",
    ),
    Scene(
        "PullMapPoolObj(source, fetch, CapacitySource(2), ordered=True)",
        given={"source": Source("123|"), "fetch": fetch, "CapacitySource": CapacitySource},
        says="fetch takes 4 s for 1, and 1 s for 2 and 3. The order is kept.",
    ),
    Scene("PullFilterObj(source, lambda n: n % 2)", given={"source": Source("1-2-3|")}),
    Scene(
        "PullReduceObj(source, lambda text, letter: text + letter)",
        given={"source": Source("a-b-c|")},
    ),
    Scene("PullDedupeObj(source)", given={"source": Source("a-b-a-b-c|")}),
    Scene("PullDedupeObj(source, consecutive=True)", given={"source": Source("a-a-b-b-a|")}),
    Scene(
        "PullTakeObj(source, 2)",
        given={"source": Source("a-b-c|")},
        says="c is never pulled.",
    ),
    Scene("PullSkipObj(source, 2)", given={"source": Source("a-b-c-d|")}),
    Scene(
        "PullTakeWhileObj(source, lambda n: n < 3)",
        given={"source": Source("1-2-3-1|")},
        says="The last 1 is never pulled.",
    ),
    Scene("PullSkipWhileObj(source, lambda n: n < 3)", given={"source": Source("1-2-3-1|")}),
    Scene(
        "PullCallbackObj(source, log)",
        given={"source": Source("a-b-c|"), "log": Called()},
    ),
    Scene(
        "PullInOrderObj(source, lambda n: n, start=1)",
        given={"source": Source("2-1-4-3|")},
    ),
    Scene(
        "PullCatchObj(source, answer)",
        given={"source": Source("a-#-b|"), "answer": Called(lambda _error: "?")},
        says="answer returns an item for the error: a question mark.",
    ),
    Scene(
        "PullCatchObj(source, lambda error: SKIP)",
        given={"source": Source("a-#-b|"), "SKIP": SKIP},
    ),
    Scene("PullFlattenObj(source)", given={"source": Source("(ab)--(cde)|")}),
    Scene(
        "PullFlatMapObj(source, lambda word: word.upper())",
        given={"source": Source("(ab)--(cde)|")},
    ),
    Scene("PullWindowObj(source, 2)", given={"source": Source("a-b--c-d-e|")}),
    Scene(
        "PullBufferObj(source, lambda letters: letters[-1] == 'z')",
        given={"source": Source("a-b-z--c-d|")},
    ),
    Scene(
        "PullGateObj(source, signal)",
        given={"source": Source("a--b---c|"), "signal": Signal("-x---y--z")},
    ),
    Scene(
        "SourceCapacityObj(source, slots)",
        given={"source": Source("abc|"), "slots": Held(3)},
        says="Another lease holds the only slot for 3 s; until then the source is not pulled.",
    ),
    Scene(
        "PullEagerObj(source, 2)",
        given={"source": Source("abcde|")},
        takes=3,
        until=20,
        says="The consumer takes 3 s for each item. At most two are prefetched.",
    ),
    Scene(
        "PullTimeoutObj(source, 2)",
        given={"source": Source("a---b-c|")},
        says="The pull that gets no item within 2 s raises TimeoutError; the next one gets b.",
    ),
    Scene(
        "PullTimeoutObj(source, 2, on_timeout='skip')",
        given={"source": Source("a---b-c|")},
        says="b arrives 4 s after its request and is dropped.",
    ),
    Scene("PullWindowTimeoutObj(source, 3, 2)", given={"source": Source("abcd----e-|")}),
    Scene("PullThrottleObj(source, 0.5)", given={"source": Source("(a b c)--------d|")}),
    Scene(
        "PullThrottleObj(source, 0.5, burst=2)",
        given={"source": Source("(a b c d)|")},
    ),
)
