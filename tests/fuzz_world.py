"""The world that a program of the fuzzer runs in: the things themselves, what may happen to them, and what must hold."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace import (
    Budget,
    CapacitySource,
    ClosedError,
    PullObj,
    PushChain,
    PushPullBufferObj,
    SourceIterObj,
    WouldBlock,
)
from headrace.testing import VirtualClock
from tests.fuzz_model import CALL, MERGES, MOST, Channel, Item, Line, Producer, Push, Thrown, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace import PushObj
    from tests.fuzz import Step

__all__ = ["World"]


class World:
    """The things themselves beside the model."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.clock = VirtualClock(patience=0.2)
        limits: dict[str, float | Budget] = {
            "slots": chance.randint(1, 4),
            "dollars": Budget(10**6),
        }
        self.root = CapacitySource(limits, name="root", clock=self.clock.time)
        self.leaves = [
            CapacitySource({"slots": chance.randint(1, 3)}, self.root, name=name) for name in "ab"
        ]
        self.held = dict.fromkeys((self.root, *self.leaves), 0.0)
        self.spent = 0
        self.workers: list[Worker] = []
        self.pushes: list[Push] = []
        self.numbers = iter(range(10**9))
        self.heard: list[Any] = []
        self.channels = [self.channel(chance, number) for number in range(chance.randint(1, 4))]
        self.producers = [self.producer(chance) for _ in range(chance.randint(1, 3))]
        cut = chance.randint(1, len(self.channels))
        self.lines = [
            self.line(chance, channels)
            for channels in (self.channels[:cut], self.channels[cut:])
            if channels
        ]
        self.script = Channel(len(self.channels), None, inside=list(range(6)), ended=True)
        self.lines.append(self.line(chance, [self.script]))

    # What it is made of.

    def channel(self, chance: random.Random, number: int) -> Channel:
        order = chance.choice(("fifo", "fifo", "lifo", "priority"))
        overflow = chance.choice(("block", "block", "error", "drop_newest", "drop_oldest"))
        if order != "fifo" and overflow == "drop_oldest":
            overflow = "block"
        maxsize = chance.choice((None, 1, 2, 4))
        buffer = PushPullBufferObj[Item](maxsize, order=order, overflow=overflow)  # type: ignore[arg-type]
        return Channel(number, buffer, order, overflow)

    def producer(self, chance: random.Random) -> Producer:
        channels = chance.sample(self.channels, chance.randint(1, min(2, len(self.channels))))
        sinks: dict[int, Channel] = {}
        heads: list[PushObj[int]] = []
        for channel in channels:
            assert channel.buffer is not None
            heads.append(
                PushChain.start(int)
                .map(partial(labelled, channel.number))
                .into(channel.buffer.sink)
            )
            sinks[id(heads[-1])] = channel
        chain = PushChain.start(int).filter(lambda n: n % 5)
        if len(heads) == 1:
            return Producer(chain.into(heads[0]), lambda _: channels, sinks)
        if chance.random() < 0.5:
            top = chain.distribute(lambda n: n % 2, *heads)
            return Producer(top, lambda n: [channels[n % 2]], sinks)
        return Producer(chain.fork(*heads), lambda _: channels, sinks)

    def line(self, chance: random.Random, channels: list[Channel]) -> Line:
        merge = chance.choice(tuple(MERGES)) if len(channels) > 1 else "none"
        line = Line(channels, merge)
        leaf = chance.choice(self.leaves)
        where = chance.choice(("none", "sources", "line", "pool"))
        if line.channels[0].buffer is None and where == "pool":
            where = "line"
        line.is_slow = chance.random() < 0.5
        sources: list[PullObj[Any]] = []
        for channel in channels:
            if channel.buffer is None:
                source: PullObj[Any] = SourceIterObj([(channel.number, n) for n in channel.inside])
            else:
                source = channel.buffer.source
            if where == "sources":
                source = source.limit(leaf)
                line.limits.append(leaf)
            sources.append(source)
        stream = sources[0] if len(sources) == 1 else MERGES[merge](*sources)
        line.bound = len(channels) + 1
        # What comes out of a zip has an item of each.
        each = len(channels) if merge == "zip" else 1
        if chance.random() < 0.3:
            stream = stream.batch(size := chance.randint(1, 3)).flatten()
            line.bound += size * each
        if where == "pool":
            line.ordered, line.pooled = chance.random() < 0.5, leaf
            unread = chance.choice((1, 8))
            stream = stream.map_pool(
                line.function(), leaf, ordered=line.ordered, max_buffered=unread
            )
            line.bound += (unread + MOST + 1) * each
        else:
            lanes = 1 if channels[0].buffer is None else chance.choice((1, 1, 3))
            line.bound += 2 * lanes * each
            stream = line.mapper = stream.map(line.function(), concurrency=lanes)
        if where == "line":
            stream = stream.limit(leaf)
            line.limits.append(leaf)
        if channels[0].buffer is not None and chance.random() < 0.3:
            stream = stream.prefetch(ahead := chance.randint(1, 3))
            line.bound += (ahead + 1) * each
        line.stream = stream
        return line

    # What may happen to it.

    def push(self, a: int, _: int) -> None:
        producer = self.producers[a % len(self.producers)]
        number = next(self.numbers)
        targets = self.targets(producer, number)
        sizes = {c: len(c.buffer) for c in targets if c.buffer is not None}
        full = {
            channel
            for channel in targets
            if channel.buffer is not None and sizes[channel] == channel.buffer.maxsize
        }
        # One that refuses does so at once, also where the push waits on for another.
        refused = {c for c in targets if c.ended or (c in full and c.overflow == "error")}
        for channel in targets:
            if channel not in refused:
                channel.inside.append(number)
        task = asyncio.ensure_future(producer.top.next(number))
        self.pushes.append(Push(number, producer, task, full, sizes, refused))

    def cancel_push(self, a: int, _: int) -> None:
        if self.pushes:
            push = self.pushes[a % len(self.pushes)]
            push.is_cancelled = push.task.cancel()

    def pull(self, a: int, _: int) -> None:
        line = self.lines[a % len(self.lines)]
        if len(line.pulls) < 3:
            line.pulls.append(asyncio.ensure_future(anext(line.stream)))

    def cancel_pull(self, a: int, b: int) -> None:
        line = self.lines[a % len(self.lines)]
        if line.pulls:
            line.pulls.pop(b % len(line.pulls)).cancel()

    def swap(self, a: int, _: int) -> None:
        line = self.lines[a % len(self.lines)]
        if line.mapper is not None:
            line.version += 1
            line.mapper.transform = line.function()

    def end(self, a: int, b: int) -> None:
        channel = self.channels[a % len(self.channels)]
        assert channel.buffer is not None
        if not channel.ended:
            channel.error = Thrown(channel.number) if b % 3 == 0 else None
            # Those that wait for room are refused, also where their push waits on for another channel.
            if waiting := channel.buffer.statistics().waiting_producers:
                del channel.inside[-waiting:]
            channel.buffer.end(channel.error)
            channel.ended = True

    async def close(self, a: int, b: int) -> None:
        if b % 4 == 0:
            line = self.lines[a % len(self.lines)]
            line.close()
            await line.stream.aclose()

    def restart(self, _a: int, _b: int) -> None:
        line = self.lines[-1]
        try:
            line.stream.restart()
        except RuntimeError:
            assert line.pulls, "refused to restart, though nobody pulls"
        else:
            assert not line.pulls, "restarted under a pull"
            line.over = line.channels[0].closed = False
            line.channels[0].inside[:] = range(6)

    def acquire(self, a: int, _: int) -> None:
        worker = Worker(self.leaves[a % 2])
        worker.task = asyncio.ensure_future(worker.work())
        self.workers.append(worker)

    def release(self, a: int, _: int) -> None:
        if self.workers:
            worker = self.workers.pop(a % len(self.workers))
            if worker.lease is None:
                worker.task.cancel()
            else:
                self.spent += int(worker.lease.cost["dollars"])
            worker.let_go.set()

    def settle(self, a: int, b: int) -> None:
        if self.workers and (lease := self.workers[a % len(self.workers)].lease) is not None:
            lease.settle(dollars=b % 9)

    def resize(self, a: int, b: int) -> None:
        (self.root, *self.leaves)[a % 3].resize({"slots": b % 5})

    def pause(self, a: int, b: int) -> None:
        node = (self.root, *self.leaves)[a % 3]
        if b % 2:
            node.pause()
        else:
            node.resume()

    async def wait(self, _a: int, b: int) -> None:
        await asyncio.sleep(CALL * (b % 4))

    # What must be so after each step.

    def targets(self, producer: Producer, number: int) -> Sequence[Channel]:
        return producer.targets(number) if number % 5 else ()

    async def check(self) -> None:
        # The clock of a virtual loop moves on only when nothing else can.
        await asyncio.sleep(CALL / 1_000)
        assert not self.heard, self.heard
        self.check_pushes()
        self.check_lines()
        self.check_channels()
        self.check_tree()

    def check_lines(self) -> None:
        for line in self.lines:
            done = [pull for pull in line.pulls if pull.done()]
            line.pulls = [pull for pull in line.pulls if not pull.done()]
            for pull in done:
                line.take(pull)
            if line.pulls:
                assert not line.over, "a pull of a closed line waits"
                assert line.may_wait(), f"a pull waits in vain: {line.stream.describe()}"

    def check_pushes(self) -> None:
        for push in self.pushes:
            if push.is_fresh:
                push.is_fresh = False
                self.drop(push)
        for push in [push for push in self.pushes if push.task.done()]:
            self.pushes.remove(push)
            targets = self.targets(push.producer, push.number)
            error: Any = (
                asyncio.CancelledError() if push.task.cancelled() else push.task.exception()
            )
            if push.is_cancelled:
                error = cancelled(push.task) or error
            accepted = targets
            if error is not None:
                kinds = {type(each) for each in leaves(error)}
                assert kinds <= self.excuses(push, targets), f"{push.number} failed: {error!r}"
                names = getattr(error, "accepted_by", ())
                accepted = [push.producer.channels[id(sink)] for sink in names]
            for channel in targets:
                if channel not in accepted and channel not in push.refused and not channel.ended:
                    assert push.number in channel.inside, f"{push.number} was refused, and given"
                    channel.inside.remove(push.number)

    def excuses(self, push: Push, targets: Sequence[Channel]) -> set[type[BaseException]]:
        found: set[type[BaseException]] = set()
        if push.is_cancelled:
            found.add(asyncio.CancelledError)
        cut = [channel for line in self.lines if line.may_be_cut() for channel in line.channels]
        if any(channel.ended or channel in cut for channel in targets):
            found.add(ClosedError)
        if any(channel.overflow == "error" and channel in push.full for channel in targets):
            found.add(WouldBlock)
        return found

    def drop(self, push: Push) -> None:
        """What the overflow of the channels that were full has cost."""
        for channel in push.full:
            if not channel.ended and "drop" in channel.overflow:
                channel.dropped += 1
                oldest = channel.inside[-1 - push.sizes[channel]]
                channel.inside.remove(push.number if channel.overflow == "drop_newest" else oldest)

    def check_channels(self) -> None:
        for line in self.lines:
            held = 0
            for channel in line.channels:
                if channel.buffer is None or channel.closed:
                    continue
                now = channel.buffer.statistics()
                assert now.dropped == channel.dropped, f"{now} of {channel}"
                assert not now.waiting_producers or now.size == channel.buffer.maxsize, now
                in_line = len(channel.inside) - now.size - now.waiting_producers
                assert in_line >= 0, f"{now} of {channel}"
                held += in_line
            assert held <= line.bound or line.may_be_cut(), (
                f"{held} are in a line: {line.stream.describe()}"
            )
        waiting = sum(c.buffer.statistics().waiting_producers for c in self.channels if c.buffer)
        assert bool(waiting) == bool(self.pushes), f"{waiting} wait of {self.pushes}"

    def check_tree(self) -> None:
        dollars = self.spent
        for worker in self.workers:
            if worker.lease is not None:
                dollars += int(worker.lease.cost["dollars"])
        assert self.root.held["dollars"] == dollars
        for node, before in self.held.items():
            below = self.leaves if node is self.root else [node]
            sure = sum(worker.leaf in below for worker in self.workers if worker.lease is not None)
            sure += sum(line.calls for line in self.lines if line.pooled in below)
            maybe = sum(leaf in below for line in self.lines for leaf in line.limits)
            held = node.held["slots"]
            assert sure <= held <= sure + maybe, f"{node!r} holds, and {sure} to {sure + maybe} do"
            assert held <= max(node.limit["slots"], before), f"{node!r} holds too much"
            self.held[node] = held
        for leaf in self.leaves:
            path = (leaf, self.root)
            stopped = any(n.paused or n.held["slots"] >= n.limit["slots"] for n in path)
            assert stopped or not leaf.waiting, f"they wait in vain: {leaf!r} under {self.root!r}"

    # The whole.

    async def run(self, steps: Sequence[Step]) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.heard.append(context)
        )
        for step in steps:
            outcome = getattr(self, step.name)(step.a, step.b)
            if outcome is not None:
                await outcome
            await self.check()
        await self.finish()

    async def finish(self) -> None:
        """Everything is opened, let go and ended: what is inside comes out, and nothing is left."""
        for node in (self.root, *self.leaves):
            node.resume()
            node.resize({"slots": MOST})
        while self.workers:
            self.release(0, 0)
        await self.check()
        for number in range(len(self.channels)):
            self.end(number, 1)
        await self.check()
        for line in self.lines:
            most = sum(len(channel.inside) for channel in line.channels) + 5
            while not line.over:
                assert most, f"never ends: {line.stream.describe()}"
                most -= 1
                line.pulls.append(asyncio.ensure_future(anext(line.stream)))
                await asyncio.sleep(CALL * 10)
                assert line.pulls[-1].done(), f"a pull never ends: {line.stream.describe()}"
                await self.check()
            await line.stream.aclose()
        await self.check()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"
        assert not self.pushes
        assert [node.held["slots"] for node in self.held] == [0, 0, 0]
        assert not any(node.waiting for node in self.held)


def labelled(channel: int, number: int) -> Item:
    return channel, number


def cancelled(task: asyncio.Future[Any]) -> BaseException | None:
    """With what a task was cancelled."""
    try:
        task.result()
    except BaseException as error:
        return error
    return None


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
