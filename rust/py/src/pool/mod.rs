//! The engine of the pool: one native object per run that starts, stops, times out, retries and reports its tasks.
//!
//! `headrace/pool/run.py` starts and ends a run, and `headrace/pool/policy.py` has the decisions that are left to Python. Everything
//! that happens to a task happens here, whatever its options:
//!
//! 1. [`feeder`] pulls an item. [`start`] accepts it: a [`task_spec`], a [`task_record`], its key and its slot.
//! 2. [`request`] gets its capacity. If that is not free, the [`registry`] keeps the record until it is granted.
//! 3. [`start`] creates the asyncio task and takes its first step there and then. CPython does that from 3.12 on (`eager_start`). Before,
//!    the engine takes that step with the new task as the current one and its context entered, and the task itself finds the result.
//!    A task that must run in a thread is [`submitted`] to an executor.
//! 4. [`task_coroutine`], the coroutine of that asyncio task, calls the function and drives its result ([`task_body`]).
//! 5. [`completion`] handles the end of the attempt: it releases the capacity, and has the task wait for its next attempt ([`timers`])
//!    or puts its last event into the [`event_queue`].
//!
//! | file | contents |
//! |---|---|
//! | [`engine`] | the engine as Python sees it |
//! | [`readiness`] | whether a task may be pulled and called |
//! | [`feeder`] | pulling items |
//! | [`start`] | from an item to the first step of its task |
//! | [`request`] | the request of a task for its capacity |
//! | [`completion`] | the end of an attempt, and of a task |
//! | [`submitted`] | work of an executor |
//! | [`timers`] | timeouts, delays before retries, queue timeouts |
//! | [`registry`] | all tasks that were accepted and have not ended |
//! | [`task_record`] | one of them |
//! | [`task_spec`] | what a task calls, and its options |
//! | [`task_ids`] | the numbers of tasks |
//! | [`task_body`] | one attempt, from its call to its end |
//! | [`task_coroutine`] | the coroutine of an asyncio task |
//! | [`task_factory`] | creating asyncio tasks |
//! | [`first_step`] | the object that a task waits for before its asyncio task knows |
//! | [`emitter`] | values that a task yields |
//! | [`envelope`] | the event that the consumer gets |
//! | [`event_queue`] | the events that are not read yet |
//! | [`output_slots`] | the order of the events of an ordered run |
//! | [`throughput`] | the number of tasks that ended, and their rate |

mod completion;
mod emitter;
mod engine;
mod envelope;
mod event_queue;
mod feeder;
mod first_step;
mod output_slots;
mod readiness;
mod registry;
mod request;
mod start;
mod submitted;
mod task_body;
mod task_coroutine;
mod task_factory;
mod task_ids;
mod task_record;
mod task_spec;
mod throughput;
mod timers;

use pyo3::prelude::*;

use crate::coroutine::Native;
use crate::object::freelist;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    Native::<event_queue::Take>::register(py)?;
    Native::<feeder::Feeder>::register(py)?;
    Native::<task_coroutine::TaskCoroutine>::register(py)?;
    module.add_class::<envelope::Envelope>()?;
    freelist::register::<envelope::Envelope>(py)?;
    module.add_class::<event_queue::EventQueue>()?;
    module.add_function(wrap_pyfunction!(event_queue::quicken, module)?)?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<task_ids::TaskIds>()?;
    module.add_class::<throughput::Throughput>()
}
