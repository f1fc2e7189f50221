"""`RayExecutor` on a cluster of several nodes in one network namespace: new nodes, lost nodes, and kills in mid run."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from headrace import HierarchicalTaskPoolRunner, RayExecutor, Task, explain
from headrace.pool.executor.ray import executor as executor_module
from tests import process_jobs as jobs
from tests.ray_support import (
    HEAD,
    Holder,
    Outcomes,
    calls,
    children,
    cluster_of,
    hold_interpreter,
    hosts_are,
    import_ray,
    note_slowly,
    skip_without_ray,
)
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

skip_without_ray()

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.timeout(120)]

TASKS = 600


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node, to which this program is connected."""
    with cluster_of(1) as made:
        yield made


@pytest.fixture
def second(cluster: Any) -> Iterator[Any]:
    """A second node."""
    node = cluster.add_node(**HEAD)
    cluster.wait_for_nodes()
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)


def make(**options: Any) -> RayExecutor:
    return RayExecutor(workers=2, prefetch=1, grace=0.2, fence=6.0, **options)


def host_of(executor: RayExecutor, node: Any) -> Any:
    [host] = [host for host in executor._placement.workers if host.node.id == node.node_id]
    return host


async def check_kill(
    executor: RayExecutor, directory: Path, kill: Callable[[], object], in_flight: int
) -> None:
    """Kill something in mid run: each value arrives once, and no more tasks are called again than were in flight."""
    outcomes = Outcomes(executor, TASKS // 3, kill)
    await outcomes.run(Task(note_slowly, directory, number, 0.01) for number in range(TASKS))
    assert not outcomes.errors
    assert sorted(outcomes.values) == list(range(TASKS))
    assert outcomes.capacity.held == 0
    called = calls(directory)
    assert len(called) == TASKS
    assert sum(called.values()) - TASKS <= in_flight
    assert outcomes.gap <= 1.0, outcomes.gap


async def test_kill_of_a_worker(cluster: Any, second: Any, tmp_path: Path) -> None:
    async with make() as executor:
        await hosts_are(executor, 2)

        def kill() -> None:
            os.kill(int((tmp_path / "begun 0").read_text().split()[0]), signal.SIGKILL)

        await check_kill(executor, tmp_path, kill, 1)


async def test_kill_of_a_host(cluster: Any, second: Any, tmp_path: Path) -> None:
    async with make() as executor:
        await hosts_are(executor, 2)
        host = host_of(executor, second)
        workers = set(children(host.pid))
        await check_kill(executor, tmp_path, lambda: os.kill(host.pid, signal.SIGKILL), 4)
        assert not any(map(jobs.is_alive, workers))
        await hosts_are(executor, 2)


async def test_kill_of_a_raylet_that_stays_a_zombie(
    cluster: Any, second: Any, tmp_path: Path
) -> None:
    raylet = second.all_processes["raylet"][0].process.pid
    async with make() as executor:
        await hosts_are(executor, 2)
        workers = set(children(host_of(executor, second).pid))
        await check_kill(executor, tmp_path, lambda: os.kill(raylet, signal.SIGKILL), 4)
        # Ray reports the end of the node.
        await hosts_are(executor, 1)
        await eventually(lambda: not any(map(jobs.is_alive, workers)))


async def test_new_node_is_used_and_a_removed_one_left(cluster: Any, tmp_path: Path) -> None:
    async with make() as executor:
        await eventually(lambda: executor.capabilities.slots == 4)
        node = cluster.add_node(**HEAD)
        assert await hosts_are(executor, 2) < 5.0
        await eventually(lambda: executor.capabilities.slots == 8)
        cluster.remove_node(node)
        await hosts_are(executor, 1)
        assert executor.capabilities.slots == 4
        assert await executor.submit(Task(jobs.double, 21)) == 42


async def test_task_that_holds_the_lock_is_not_fenced(cluster: Any) -> None:
    async with RayExecutor(workers=1, fence=1.5) as executor:
        assert await executor.submit(Task(hold_interpreter, 3.0)) == 3.0
        # The lock of the driver, which does not see its event loop meanwhile.
        before = await executor.submit(Task(jobs.process_id))
        hold_interpreter(3.0)
        assert await executor.submit(Task(jobs.process_id)) == before


async def test_wait_for_processors_is_reported(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, _ = import_ray()
    holder = ray.remote(Holder).options(num_cpus=1).remote()
    await asyncio.to_thread(ray.get, holder.ready.remote())
    monkeypatch.setattr(executor_module, "_PATIENCE", 0.5)
    runner = HierarchicalTaskPoolRunner([Task(jobs.double, 21)], 1, executor=(executor := make()))
    async with executor:
        running = asyncio.ensure_future(runner.run())
        wait = r"the host of node 127\.0\.0\.1 waits for 2 processors of Ray \(1 free\)"
        text = f"{wait}, for 0.5 s so far: end the actors"
        with pytest.warns(RuntimeWarning, match=text) as caught:
            await eventually(lambda: len(caught))
        assert re.search(f"waits for a slot of <RayExecutor: 0 hosts, 0 slots, {wait}>", explain())
        ray.kill(holder)
        assert await running == [42]
        await eventually(lambda: repr(executor) == "<RayExecutor: 1 host, 4 slots>")


# Last: Ray reports the end of the node much later, and the next node would wait for that.
async def test_kill_of_a_raylet(cluster: Any, second: Any, tmp_path: Path) -> None:
    raylet = second.all_processes["raylet"][0].process

    def kill() -> None:
        raylet.kill()
        # As an init does. Ray takes a process that nothing has waited for to be alive.
        raylet.wait()

    async with make() as executor:
        await hosts_are(executor, 2)
        host = host_of(executor, second)
        processes = {host.pid, *children(host.pid)}
        await check_kill(executor, tmp_path, kill, 4)
        # Long before Ray reports the end of the node.
        await hosts_are(executor, 1, 5.0)
        await eventually(lambda: not any(map(jobs.is_alive, processes)), 5.0)
