//! The calls of a `map` with a `concurrency`. `headrace/pull/_concurrent_map.py` derives from [`calls`] and closes the stream.
//!
//! One asyncio task, the driver, pulls the source while there is space. An awaitable result of the callable becomes an asyncio task of
//! its own. The results are in one queue: in input order, or in the order in which the calls ended. The consumer takes from the head of
//! this queue and waits for nothing else, so a cancelled pull loses nothing and cancels no call.
//!
//! 1. [`driver`] pulls an item and calls the callable. It waits while there is no space.
//! 2. An asyncio task is made for an awaitable result, and its first step is taken at once ([`crate::asyncio_task`]).
//! 3. [`call_body`], the work of that asyncio task, drives the awaitable and reports its end.
//! 4. [`calls`] puts the result into the queue ([`state`]), and wakes the consumer and the driver.
//! 5. [`result_pull`] takes the result, or starts the driver and waits. It wakes the driver if that waits and there is space now. A
//!    consumer that finds many results thus wakes the driver once, which then makes many calls.
//!
//! # Order and concurrency of a key
//!
//! With a `partition_by`, at most `per_key` calls of one key run at once, and its items are called in the order of the source.
//!
//! 1. [`start`] gets the key of an item, and [`keys`] its number. An error of either is the result of that item.
//! 2. [`partitions`] counts the call if it may start, and the call goes on as above. Otherwise the item joins the wait queue of its key.
//! 3. The asyncio task of an item that waits is made at once: it has the context in which the item was pulled, `tasks` has it, so closing
//!    cancels it like any other, and the driver may wait for the source meanwhile. Its [`call_body`] waits before it calls.
//! 4. A call that ends gives its place to the oldest item that may start, and wakes its task. That call starts in the next iteration.
//! 5. The record of a key is removed with its last item.
//!
//! An item that waits is one of the `window` items that are pulled and not delivered. So one bound holds in either order, and a queue
//! that is full of one key cannot keep the first item of the output from its call: starting it needs no space. The cost of this bound
//! is that a busy key may fill the window; then no item of another key is pulled.
//!
//! # Why this is not the engine of the pool
//!
//! The two share the parts that do the same job: the asyncio tasks and their first step ([`crate::asyncio_task`]), the pulls of the
//! source ([`crate::pull::source_pull`]), and the ring of ordered output ([`crate::object::output_slots`]). The engine itself has
//! another job in each of these points:
//!
//! 1. **When an item is pulled.** A run pulls as long as its capacity and its event queue have space, whether or not its
//!    events are read. A `map` is lazy (guarantee 1): it starts at a pull, holds at most `window` items, and with a `concurrency` of 1
//!    pulls only while a pull waits.
//! 2. **The parts of a task.** A run registers each task with an id, a key, a request for capacity, a deadline, an attempt and a clock
//!    reading, and emits an envelope. A call of `map` has none of these: its state is a slot and an awaitable, and its result is queued
//!    as it is. With the engine, each item would pay for a record, a registry entry and an envelope.
//! 3. **The effect of an error.** A run turns an error into an event, and ends its stream after the last one. A `map` raises the error
//!    object at the pull of that item, with one note, and goes on (guarantee 3). The same is true of an error of the source.
//! 4. **The place of the call.** A run calls it in the context of the task. A `map` calls it in the driver, whose context the
//!    source shares, and makes a task only for an awaitable: a sync callable costs no asyncio task, unless its item waits for its key.
//! 5. **The closing of the source.** A run does not own its source. A `map` closes it after the calls, in the task that pulled it
//!    (guarantee 4), so context variables and task groups that a source holds open across its `yield`s work as if it ran alone.
//! 6. **The number of runs.** A run is used once. A `map` restarts, on another event loop if need be (guarantee 11), and its
//!    `concurrency`, `window`, `per_key` and callables are live (guarantee 13).
//!
//! # Races
//!
//! - A call that ends in its first step has ended before its asyncio task has: that one takes its own first step in the next event-loop
//!   iteration, to get the stored result. Closing does not wait for it by name. It waits for a task that takes a step in a later
//!   iteration than the last call was started in: the driver, which it cancels, or the task that closes the source.
//! - A driver that waits for space may find at its wake-up that the stream was restarted and has another driver. Each start has a
//!   number, and a driver with an old number ends.
//! - An item may get its call before its asyncio task waits for it, or be cancelled after it got its call. The claim on the key
//!   decides: the item is in the wait queue of its key until it gets the call, and leaves with the call or without it.
//! - The consumer stays registered between its wake-up and its next step, so that a restart in between is refused.

mod call_body;
mod calls;
mod driver;
mod keys;
mod partitions;
mod result_pull;
mod start;
mod state;

use pyo3::prelude::*;

use crate::asyncio_task::TaskCoroutine;
use crate::coroutine::Native;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    Native::<TaskCoroutine<call_body::CallBody>>::register(py)?;
    Native::<driver::CallDriver>::register(py)?;
    Native::<result_pull::ResultPull>::register(py)?;
    module.add_class::<calls::PyConcurrentCalls>()
}
