"""`DependencyGraph` when keys, finalizers, signal handlers and threads call it in the middle of its own methods.

Each program runs in its own process, so that a deadlock fails instead of hanging.
"""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import CycleError, DependencyGraph, DependencyState, Task

if TYPE_CHECKING:
    from collections.abc import Callable

PENDING, READY, RUNNING, COMPLETED, FAILED, ABORTED = DependencyState
MANY = 3_000


class Calling(threading.local):
    """Whether this thread is in a callback of a key. Without it, the callbacks of the test would recurse."""

    is_on = False


CALLING = Calling()


class Key:
    """A key whose hash, comparison and repr call back. It is equal to keys with the same name."""

    def __init__(self, name: object, **calls: Callable[[], object]) -> None:
        self.name = name
        self.calls = calls

    def call(self, name: str) -> None:
        if name in self.calls and not CALLING.is_on:
            CALLING.is_on = True
            try:
                self.calls[name]()
            finally:
                CALLING.is_on = False

    def __hash__(self) -> int:
        self.call("hash")
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        self.call("eq")
        return self.name == (other.name if isinstance(other, Key) else other)

    def __repr__(self) -> str:
        self.call("repr")
        return f"Key({self.name!r})"


def check(graph: DependencyGraph) -> None:
    """Assert that the state of the graph is consistent. Nothing else may change it during the check."""
    before, CALLING.is_on = CALLING.is_on, True
    nodes = graph.nodes()
    counts = dict.fromkeys(DependencyState, 0)
    for node in nodes:
        counts[node.state] += 1
        states = [graph[need].state for need in node.depends_on]
        if node.state is PENDING:
            assert not {FAILED, ABORTED} & set(states), node
            assert set(states) != {COMPLETED}, node
        elif node.state in (READY, RUNNING, COMPLETED):
            assert all(state is COMPLETED for state in states), node
        assert (node.value is not None) <= (node.state is COMPLETED), node
    assert graph.counts() == counts
    assert len(graph) == len(nodes)
    assert graph.finished == (counts[PENDING] + counts[READY] + counts[RUNNING] == 0)
    CALLING.is_on = before


def use(graph: DependencyGraph, name: object) -> None:
    """Call most methods of the graph, with nodes of its own."""
    first, second, third = ((name, n) for n in range(3))
    graph.add_all([(first, 1), (second, 2, [first]), (third, 3)])
    graph.depend(third, second)
    assert graph.take(first) == 1
    assert graph.complete(first, "value")
    assert graph[second].state is READY
    assert graph.fail(second, ValueError())
    assert graph[third].state is ABORTED
    assert graph.abort(third) == ()
    assert first in graph
    assert graph.counts()[COMPLETED]
    assert not graph.completed(object(), None)
    assert "completed" in repr(graph)


def finalizers() -> None:
    graph = DependencyGraph(keep_open=True)
    graph.add("root")
    numbers = iter(range(10**6))
    errors: list[BaseException] = []

    class Garbage:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            number = next(numbers)
            try:
                graph.add(("aborted", number), depends_on=["root"])
                assert graph.abort(("aborted", number)) == (("aborted", number),)
                use(graph, number)
                if number % 50 == 0:
                    check(graph)
                    graph.forget()
            except BaseException as error:
                errors.append(error)

    sys.unraisablehook = lambda unraisable: errors.append(unraisable.exc_value)  # type: ignore[arg-type]
    gc.set_threshold(20, 2, 2)
    for n in range(MANY):
        if n % 10 == 0:
            Garbage()
        graph.add(n, [n], depends_on=["root", *([n - 1] if n else [])])
        graph.take(n, None)
    gc.set_threshold(700, 10, 10)
    assert errors == []
    assert next(numbers) > 100
    check(graph)
    assert graph.complete("root")
    for n in range(MANY):
        assert graph.complete(n, n)
    check(graph)


def messages() -> None:
    graph = DependencyGraph()
    key = Key("key", repr=lambda: use(graph, object()), hash=graph.counts, eq=graph.nodes)
    for name in (graph, key):
        for call in (graph.complete, graph.take, graph.abort, graph.depend):
            with pytest.raises(ValueError, match="key must be that of a node of this graph"):
                call(name)
        with pytest.raises(ValueError, match="which is no node"):
            graph.add("a", depends_on=[name])
        with pytest.raises(CycleError):
            graph.add(name, depends_on=[name])
        graph.add(name)
        with pytest.raises(ValueError, match="key must be a new one"):
            graph.add(name)
        task = Task(len, "a")
        graph.add_all([((name, "holder"), task)])
        with pytest.raises(ValueError, match="must be a Task of its own"):
            graph.add((name, "other"), task)
        graph.take(name)
        with pytest.raises(RuntimeError, match="is running: only one that is ready"):
            graph.take(name)
        with pytest.raises(RuntimeError, match="is running: only one that was not taken"):
            graph.depend(name, (name, "holder"))
        graph.complete(name)
        with pytest.raises(RuntimeError, match="is completed: only one"):
            graph.complete(name)
        check(graph)


def keys_that_call_back() -> None:
    graph = DependencyGraph()
    for where in ("hash", "eq", "repr"):
        numbers = iter(range(10**6))

        def call(where: str = where, numbers: Any = numbers) -> None:
            use(graph, (where, next(numbers)))
            graph.nodes()

        def key(name: object, where: str = where, call: Any = call) -> Key:
            return Key((where, name), **{where: call})

        graph.add_all([(key(n), n, [key(n - 1)] if n else []) for n in range(4)])
        graph.add(key("more"), depends_on=[key(3), key(1)])
        assert graph.depend(key("more"), key(2), key(0))
        assert key("more") in graph
        assert key("none") not in graph
        with pytest.raises(ValueError, match="key must be a new one"):
            graph.add(key(0))
        with pytest.raises(CycleError):
            graph.depend(key(0), key("more"))
        assert graph[key(3)].state is PENDING
        assert graph.take(key(0)) == 0
        assert graph.complete(key(0), 1)
        assert graph.fail(key(1), OSError())
        assert graph[key("more")].state is ABORTED
        assert graph.abort(key("more")) == ()
        assert next(numbers) > 1
        check(graph)


def keys_that_raise() -> None:
    class Wrong(BaseException): ...

    def fail() -> None:
        raise Wrong

    graph = DependencyGraph()
    notified: list[object] = []
    graph.on_ready(notified.append)
    graph.add_all([("a", 1), ("b", 2, ["a"]), ("c", 3)])
    before = graph.nodes()
    key: Key
    for key in (Key("a", hash=fail), Key("a", eq=fail), Key(3, hash=fail)):
        calls: list[Callable[[Key], object]] = [
            graph.add,
            lambda key: graph.add_all([("d", 1), (key, 1)]),
            lambda key: graph.add("d", depends_on=["a", key]),
            lambda key: graph.depend("b", "c", key),
            lambda key: graph.depend(key, "c"),
            lambda key: graph.take(key, None),
            graph.complete,
            lambda key: graph.fail(key, ValueError()),
            graph.abort,
            graph.__getitem__,
            graph.__contains__,
        ]
        for call in calls:
            with pytest.raises(Wrong):
                call(key)
            assert graph.nodes() == before
            check(graph)
    named: list[Callable[[Key], object]] = [graph.complete, graph.abort, graph.take]
    for use_key in named:
        with pytest.raises(Wrong):
            use_key(Key("unknown", repr=fail))
    assert notified == ["a", "c"]
    graph.add(Key("d"))
    assert notified[2:] == ["d"]


def keys_that_are_added_during_a_call() -> None:
    """An equal key that another call adds between the lookup and the change is detected."""
    graph = DependencyGraph()

    hashes = compared = count = 0

    def once(call: Callable[[], object]) -> Callable[[], object]:
        calls = [call]
        return lambda: calls.pop()() if calls else None

    # Added by the hash of a later key of the same batch, after the first key was found to be new.
    class Late:
        hashed = 0

        def __hash__(self) -> int:
            self.hashed += 1
            # The last call comes from the core, when all checks are done.
            if self.hashed == hashes:
                graph.add("k", "late")
            return 1

    for hashes in range(1, 10):
        graph = DependencyGraph()
        late = Late()
        try:
            graph.add_all([("k", "early"), (late, 1)])
        except ValueError:
            assert [node.item for node in graph.nodes()] == ["late"]
            check(graph)
            continue
        assert late.hashed < hashes
        assert [node.item for node in graph.nodes()] == ["early", 1]
        break
    assert hashes > 2

    class Old:
        def __hash__(self) -> int:
            return hash("k")

        def __eq__(self, other: object) -> bool:
            nonlocal count
            if self is other:
                return True
            count += 1
            if count == compared:
                graph.add("k", "late")
            return False

    # Added by the comparison with an older key of the same hash.
    for round_number in range(1, 10):
        compared = round_number
        graph = DependencyGraph()
        count = 0

        graph.add(Old(), "old")
        try:
            graph.add("k", "early")
        except ValueError:
            assert [node.item for node in graph.nodes()] == ["old", "late"]
            check(graph)
            continue
        assert [node.item for node in graph.nodes()] == ["old", "early"]
        break
    assert compared > 1

    # A node that the lookup found is forgotten before the change.
    graph = DependencyGraph()

    def forget() -> None:
        graph.abort("gone")
        assert graph.forget() == 1

    graph.add(Key("gone", eq=once(forget)))
    with pytest.raises(ValueError, match="key must be that of a node"):
        graph.complete(Key("gone"))
    check(graph)
    graph.add("gone", "again")
    assert graph["gone"].item == "again"


def signals() -> None:
    graph = DependencyGraph(keep_open=True)
    numbers = iter(range(10**6))
    errors: list[BaseException] = []
    notified: list[object] = []
    graph.on_ready(notified.append)

    is_checking = False

    def handle(signum: int, frame: object) -> None:
        nonlocal is_checking
        if is_checking:
            return
        number = next(numbers)
        try:
            use(graph, ("signal", number))
            if number % 10 == 0:
                is_checking = True
                check(graph)
                is_checking = False
        except BaseException as error:
            errors.append(error)

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    rounds = 0
    while rounds < MANY or next(numbers) < 100:
        use(graph, rounds)
        if rounds % 100 == 99:
            graph.forget()
        rounds += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert errors == []
    check(graph)
    # Of each three nodes, one was ready at once and one later.
    handled = {key[0] for key in notified if isinstance(key, tuple) and isinstance(key[0], tuple)}
    assert len(notified) == 3 * (rounds + len(handled))


def signals_that_raise() -> None:
    """An exception of a signal handler leaves the graph as before or after a call, with all callbacks delivered."""

    class Alarm(BaseException): ...

    def handle(signum: int, frame: object) -> None:
        raise Alarm

    graph = DependencyGraph(keep_open=True)
    notified: list[object] = []
    listener = notified.append
    graph.on_ready(listener)
    signal.signal(signal.SIGALRM, handle)
    interrupted = rounds = 0
    while interrupted < 200:
        try:
            # Inside: on a busy machine it goes off at once.
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            while True:
                rounds += 1
                graph.add_all([(rounds, 1), (-rounds, 2, [rounds])])
                graph.complete(rounds)
                graph.complete(-rounds)
        except Alarm:
            interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    ready = [node.key for node in graph.nodes() if node.state in (READY, COMPLETED)]
    assert sorted(notified, key=str) == sorted(ready, key=str)
    check(graph)


def threads() -> None:
    graph = DependencyGraph(keep_open=True)
    errors: list[BaseException] = []
    owners: list[object] = []
    each, workers = 60, 4
    begin = threading.Barrier(workers)
    sys.setswitchinterval(1e-5)

    def work(worker: int) -> None:
        try:
            begin.wait()
            for n in range(each):

                def call(n: int = n) -> None:
                    use(graph, object())
                    assert ("none", n) not in graph

                # All threads try to add this key, and one of them succeeds.
                try:
                    graph.add(Key(n, hash=call, eq=call), worker)
                except ValueError:
                    pass
                else:
                    owners.append(n)
                graph.add(Key((worker, n), hash=call), depends_on=[Key(n, eq=call)])
                graph.take(Key(n, eq=call), None)
                try:
                    graph.complete(Key(n, hash=call), worker)
                except RuntimeError:
                    assert graph[n].state is COMPLETED
                if n % 20 == 19:
                    graph.nodes(COMPLETED)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=work, args=[worker]) for worker in range(workers)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert errors == []
    assert sorted(owners, key=str) == sorted(range(each), key=str)
    check(graph)


PROGRAMS = [
    finalizers,
    messages,
    keys_that_call_back,
    keys_that_raise,
    keys_that_are_added_during_a_call,
    pytest.param(
        signals, marks=pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX")
    ),
    pytest.param(
        signals_that_raise,
        marks=pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX"),
    ),
    threads,
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_graph_is_reentrant(program: Callable[[], None]) -> None:
    process = subprocess.run(
        [sys.executable, __file__, program.__name__],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_aborted_dependant_may_be_forgotten_early() -> None:
    ends: list[Callable[[DependencyGraph], object]] = [
        lambda graph: graph.complete("a"),
        lambda graph: graph.fail("a", ValueError()),
        lambda graph: graph.abort("a"),
        lambda graph: graph.depend("a", "other"),
    ]
    for end in ends:
        graph = DependencyGraph()
        graph.add_all([("a", 1), ("b", 2), ("c", 3, ["a", "b"]), ("other", 4)])
        graph.abort("b")
        assert graph.forget() == 2
        end(graph)
        assert "c" not in graph
        check(graph)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
