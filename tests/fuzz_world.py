"""The world of a fuzzed program: its objects, the steps that can happen, and the checks after each step."""

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
from tests.fuzz_model import (
    CALL,
    MERGES,
    MOST,
    Channel,
    Item,
    Pipeline,
    Producer,
    Push,
    Thrown,
    Worker,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace import PushObj
    from tests.fuzz import Step

__all__ = ["World"]


class World:
    """The real objects beside the model."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.clock = VirtualClock(patience=0.2)
        limits: dict[str, float | Budget] = {
            "slots": rng.randint(1, 4),
            "dollars": Budget(10**6),
        }
        self.root = CapacitySource(limits, name="root", clock=self.clock.time)
        self.leaves = [
            CapacitySource({"slots": rng.randint(1, 3)}, self.root, name=name) for name in "ab"
        ]
        self.held = dict.fromkeys((self.root, *self.leaves), 0.0)
        self.spent = 0
        self.workers: list[Worker] = []
        self.pushes: list[Push] = []
        self.numbers = iter(range(10**9))
        self.loop_errors: list[Any] = []
        self.channels = [self.channel(rng, number) for number in range(rng.randint(1, 4))]
        self.producers = [self.producer(rng) for _ in range(rng.randint(1, 3))]
        cut = rng.randint(1, len(self.channels))
        self.pipelines = [
            self.pipeline(rng, channels)
            for channels in (self.channels[:cut], self.channels[cut:])
            if channels
        ]
        self.script = Channel(len(self.channels), None, inside=list(range(6)), ended=True)
        self.pipelines.append(self.pipeline(rng, [self.script]))

    # Construction.

    def channel(self, rng: random.Random, number: int) -> Channel:
        order = rng.choice(("fifo", "fifo", "lifo", "priority"))
        overflow = rng.choice(("block", "block", "error", "drop_newest", "drop_oldest"))
        if order != "fifo" and overflow == "drop_oldest":
            overflow = "block"
        maxsize = rng.choice((None, 1, 2, 4))
        buffer = PushPullBufferObj[Item](maxsize, order=order, overflow=overflow)  # type: ignore[arg-type]
        return Channel(number, buffer, order, overflow)

    def producer(self, rng: random.Random) -> Producer:
        channels = rng.sample(self.channels, rng.randint(1, min(2, len(self.channels))))
        sinks: dict[int, Channel] = {}
        heads: list[PushObj[int]] = []
        for channel in channels:
            assert channel.buffer is not None
            heads.append(
                PushChain.start(int)
                .map(partial(with_channel, channel.number))
                .into(channel.buffer.sink)
            )
            sinks[id(heads[-1])] = channel
        chain = PushChain.start(int).filter(lambda n: n % 5)
        if len(heads) == 1:
            return Producer(chain.into(heads[0]), lambda _: channels, sinks)
        if rng.random() < 0.5:
            top = chain.distribute(lambda n: n % 2, *heads)
            return Producer(top, lambda n: [channels[n % 2]], sinks)
        return Producer(chain.fork(*heads), lambda _: channels, sinks)

    def pipeline(self, rng: random.Random, channels: list[Channel]) -> Pipeline:
        merge = rng.choice(tuple(MERGES)) if len(channels) > 1 else "none"
        pipeline = Pipeline(channels, merge)
        leaf = rng.choice(self.leaves)
        limited = rng.choice(("none", "sources", "pipeline", "pool"))
        if pipeline.channels[0].buffer is None and limited == "pool":
            limited = "pipeline"
        pipeline.is_slow = rng.random() < 0.5
        sources: list[PullObj[Any]] = []
        for channel in channels:
            if channel.buffer is None:
                source: PullObj[Any] = SourceIterObj([(channel.number, n) for n in channel.inside])
            else:
                source = channel.buffer.source
            if limited == "sources":
                source = source.limit(leaf)
                pipeline.limits.append(leaf)
            sources.append(source)
        stream = sources[0] if len(sources) == 1 else MERGES[merge](*sources)
        pipeline.bound = len(channels) + 1
        # An item of a zip contains one of each channel.
        each = len(channels) if merge == "zip" else 1
        if rng.random() < 0.3:
            stream = stream.batch(size := rng.randint(1, 3)).flatten()
            pipeline.bound += size * each
        if limited == "pool":
            pipeline.ordered, pipeline.pooled = rng.random() < 0.5, leaf
            unread = rng.choice((1, 8))
            stream = stream.map_pool(
                pipeline.make_function(), leaf, ordered=pipeline.ordered, max_buffered=unread
            )
            pipeline.bound += (unread + MOST + 1) * each
        else:
            concurrency = 1 if channels[0].buffer is None else rng.choice((1, 1, 3))
            pipeline.bound += 2 * concurrency * each
            stream = pipeline.mapper = stream.map(pipeline.make_function(), concurrency=concurrency)
        if limited == "pipeline":
            stream = stream.limit(leaf)
            pipeline.limits.append(leaf)
        if channels[0].buffer is not None and rng.random() < 0.3:
            stream = stream.prefetch(prefetched := rng.randint(1, 3))
            pipeline.bound += (prefetched + 1) * each
        pipeline.stream = stream
        return pipeline

    # Steps.

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
        # A channel refuses at once, even where the push waits for another channel.
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
        pipeline = self.pipelines[a % len(self.pipelines)]
        if len(pipeline.pulls) < 3:
            pipeline.pulls.append(asyncio.ensure_future(anext(pipeline.stream)))

    def cancel_pull(self, a: int, b: int) -> None:
        pipeline = self.pipelines[a % len(self.pipelines)]
        if pipeline.pulls:
            pipeline.pulls.pop(b % len(pipeline.pulls)).cancel()

    def swap(self, a: int, _: int) -> None:
        pipeline = self.pipelines[a % len(self.pipelines)]
        if pipeline.mapper is not None:
            pipeline.version += 1
            pipeline.mapper.transform = pipeline.make_function()

    def end(self, a: int, b: int) -> None:
        channel = self.channels[a % len(self.channels)]
        assert channel.buffer is not None
        if not channel.ended:
            channel.error = Thrown(channel.number) if b % 3 == 0 else None
            # Pushes that wait for space are refused, even where they wait for another channel too.
            if waiting := channel.buffer.statistics().waiting_producers:
                del channel.inside[-waiting:]
            channel.buffer.end(channel.error)
            channel.ended = True

    async def close(self, a: int, b: int) -> None:
        if b % 4 == 0:
            pipeline = self.pipelines[a % len(self.pipelines)]
            pipeline.close()
            await pipeline.stream.aclose()

    def restart(self, _a: int, _b: int) -> None:
        pipeline = self.pipelines[-1]
        try:
            pipeline.stream.restart()
        except RuntimeError:
            assert pipeline.pulls, "refused to restart without a pending pull"
        else:
            assert not pipeline.pulls, "restarted during a pull"
            pipeline.over = pipeline.channels[0].closed = False
            pipeline.channels[0].inside[:] = range(6)

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
            worker.unpin.set()

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

    # Checks after each step.

    def targets(self, producer: Producer, number: int) -> Sequence[Channel]:
        return producer.targets(number) if number % 5 else ()

    async def check(self) -> None:
        # A virtual clock advances only when nothing else can run.
        await asyncio.sleep(CALL / 1_000)
        assert not self.loop_errors, self.loop_errors
        self.check_pushes()
        self.check_pipelines()
        self.check_channels()
        self.check_tree()

    def check_pipelines(self) -> None:
        for pipeline in self.pipelines:
            done = [pull for pull in pipeline.pulls if pull.done()]
            pipeline.pulls = [pull for pull in pipeline.pulls if not pull.done()]
            for pull in done:
                pipeline.take(pull)
            if pipeline.pulls:
                assert not pipeline.over, "a pull of a closed pipeline waits"
                assert pipeline.may_wait(), (
                    f"a pull waits although it could continue: {pipeline.stream.describe()}"
                )

    def check_pushes(self) -> None:
        for push in self.pushes:
            if push.is_new:
                push.is_new = False
                self.drop(push)
        for push in [push for push in self.pushes if push.task.done()]:
            self.pushes.remove(push)
            targets = self.targets(push.producer, push.number)
            error: Any = (
                asyncio.CancelledError() if push.task.cancelled() else push.task.exception()
            )
            if push.is_cancelled:
                error = cancellation_of(push.task) or error
            accepted = targets
            if error is not None:
                kinds = {type(each) for each in leaves(error)}
                assert kinds <= self.allowed_errors(push, targets), (
                    f"{push.number} failed: {error!r}"
                )
                names = getattr(error, "accepted_by", ())
                accepted = [push.producer.channels[id(sink)] for sink in names]
            for channel in targets:
                if channel not in accepted and channel not in push.refused and not channel.ended:
                    assert push.number in channel.inside, f"{push.number} was refused and returned"
                    channel.inside.remove(push.number)

    def allowed_errors(self, push: Push, targets: Sequence[Channel]) -> set[type[BaseException]]:
        found: set[type[BaseException]] = set()
        if push.is_cancelled:
            found.add(asyncio.CancelledError)
        cut = [
            channel
            for pipeline in self.pipelines
            if pipeline.may_be_cut()
            for channel in pipeline.channels
        ]
        if any(channel.ended or channel in cut for channel in targets):
            found.add(ClosedError)
        if any(channel.overflow == "error" and channel in push.full for channel in targets):
            found.add(WouldBlock)
        return found

    def drop(self, push: Push) -> None:
        """Record the items that the overflow policy of full channels dropped."""
        for channel in push.full:
            if not channel.ended and "drop" in channel.overflow:
                channel.dropped += 1
                oldest = channel.inside[-1 - push.sizes[channel]]
                channel.inside.remove(push.number if channel.overflow == "drop_newest" else oldest)

    def check_channels(self) -> None:
        for pipeline in self.pipelines:
            held = 0
            for channel in pipeline.channels:
                if channel.buffer is None or channel.closed:
                    continue
                now = channel.buffer.statistics()
                assert now.dropped == channel.dropped, f"{now} of {channel}"
                assert not now.waiting_producers or now.size == channel.buffer.maxsize, now
                in_pipeline = len(channel.inside) - now.size - now.waiting_producers
                assert in_pipeline >= 0, f"{now} of {channel}"
                held += in_pipeline
            assert held <= pipeline.bound or pipeline.may_be_cut(), (
                f"{held} are in the pipeline: {pipeline.stream.describe()}"
            )
        waiting = sum(c.buffer.statistics().waiting_producers for c in self.channels if c.buffer)
        assert bool(waiting) == bool(self.pushes), f"{waiting} waiting producers of {self.pushes}"

    def check_tree(self) -> None:
        dollars = self.spent
        for worker in self.workers:
            if worker.lease is not None:
                dollars += int(worker.lease.cost["dollars"])
        assert self.root.held["dollars"] == dollars
        for node, before in self.held.items():
            below = self.leaves if node is self.root else [node]
            minimum = sum(
                worker.leaf in below for worker in self.workers if worker.lease is not None
            )
            minimum += sum(
                pipeline.calls for pipeline in self.pipelines if pipeline.pooled in below
            )
            optional = sum(leaf in below for pipeline in self.pipelines for leaf in pipeline.limits)
            held = node.held["slots"]
            assert minimum <= held <= minimum + optional, (
                f"{node!r} must hold {minimum} to {minimum + optional}"
            )
            assert held <= max(node.limit["slots"], before), f"{node!r} holds too much"
            self.held[node] = held
        for leaf in self.leaves:
            path = (leaf, self.root)
            stopped = any(n.paused or n.held["slots"] >= n.limit["slots"] for n in path)
            assert stopped or not leaf.waiting, (
                f"they wait although there is capacity: {leaf!r} under {self.root!r}"
            )

    # A whole run.

    async def run(self, steps: Sequence[Step]) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.loop_errors.append(context)
        )
        for step in steps:
            outcome = getattr(self, step.name)(step.a, step.b)
            if outcome is not None:
                await outcome
            await self.check()
        await self.finish()

    async def finish(self) -> None:
        """Open, release and end everything: all items come out, and nothing is left."""
        for node in (self.root, *self.leaves):
            node.resume()
            node.resize({"slots": MOST})
        while self.workers:
            self.release(0, 0)
        await self.check()
        for number in range(len(self.channels)):
            self.end(number, 1)
        await self.check()
        for pipeline in self.pipelines:
            most = sum(len(channel.inside) for channel in pipeline.channels) + 5
            while not pipeline.over:
                assert most, f"never ends: {pipeline.stream.describe()}"
                most -= 1
                pipeline.pulls.append(asyncio.ensure_future(anext(pipeline.stream)))
                await asyncio.sleep(CALL * 10)
                assert pipeline.pulls[-1].done(), f"a pull never ends: {pipeline.stream.describe()}"
                await self.check()
            await pipeline.stream.aclose()
        await self.check()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"leftover tasks: {left}"
        assert not self.pushes
        assert [node.held["slots"] for node in self.held] == [0, 0, 0]
        assert not any(node.waiting for node in self.held)


def with_channel(channel: int, number: int) -> Item:
    return channel, number


def cancellation_of(task: asyncio.Future[Any]) -> BaseException | None:
    """Return the error with which a task was cancelled."""
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
