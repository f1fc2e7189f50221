//! The engine of the pool: one native object per run that starts, stops, times out, retries and reports its tasks.
//!
//! `headrace/pool/run.py` starts and ends a run, and `headrace/pool/policy.py` has the decisions that are left to Python. The
//! engine handles every task, with any options, in these steps:
//!
//! 1. [`feeder`] pulls an item. [`start`] accepts it: a [`task_spec`], a [`task_record`], its key and its slot.
//! 2. [`request`] acquires its capacity. If the capacity is not free, the [`registry`] keeps the record until it is granted.
//! 3. [`start`] creates the asyncio task and immediately takes its first step ([`crate::asyncio_task`]). A task that runs elsewhere is
//!    [`submitted`] to its executor.
//! 4. [`task_body`], the work of that asyncio task, calls the function and drives its result.
//! 5. [`completion`] handles the end of the attempt. It releases the capacity, then starts the delay before a retry ([`timers`]) or
//!    puts the last event of the task into the [`event_queue`].
//!
//! | file | contents |
//! |---|---|
//! | [`engine`] | the Python class of the engine |
//! | [`readiness`] | the conditions under which a task may be pulled and called |
//! | [`feeder`] | pulling items |
//! | [`start`] | the path from an item to the first step of its task |
//! | [`request`] | the request of a task for its capacity |
//! | [`completion`] | the end of an attempt and of a task |
//! | [`journaled`] | the journal of the run |
//! | [`cached`] | the cache of the run |
//! | [`left_call`] | calls that go on after their tasks have ended |
//! | [`submitted`] | work of an executor |
//! | [`executor_slots`] | the slots of an executor |
//! | [`timers`] | timeouts, delays before retries, queue timeouts |
//! | [`registry`] | all tasks that were accepted and have not ended, by id |
//! | [`task_record`] | the state of one task |
//! | [`task_spec`] | the function and the options of a task |
//! | [`task_ids`] | the numbers of tasks |
//! | [`task_names`] | the names of the asyncio tasks |
//! | [`task_body`] | one attempt, from its call to its end |
//! | [`emitter`] | values that a task yields |
//! | [`envelope`] | the event that the consumer gets |
//! | [`event_queue`] | the unread events |
//! | [`listing`] | the tasks of a run as tuples, for `headrace.explain()` |
//! | [`throughput`] | the number of ended tasks, and their rate |

mod cached;
mod completion;
mod emitter;
mod engine;
mod envelope;
mod event_queue;
mod executor_slots;
mod feeder;
mod journaled;
mod left_call;
mod listing;
mod readiness;
mod registry;
mod request;
mod self_wait;
mod start;
mod submitted;
mod task_body;
mod task_ids;
mod task_names;
mod task_record;
mod task_spec;
mod throughput;
mod timers;

use pyo3::prelude::*;

use crate::asyncio_task::TaskCoroutine;
use crate::coroutine::Native;
use crate::object::freelist;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    crate::capacity::register_finder(self_wait::find);
    Native::<event_queue::Take>::register(py)?;
    Native::<feeder::Feeder>::register(py)?;
    Native::<TaskCoroutine<task_body::TaskBody>>::register(py)?;
    module.add_class::<envelope::PyEnvelope>()?;
    freelist::register::<envelope::PyEnvelope>(py)?;
    module.add_class::<event_queue::PyEventQueue>()?;
    module.add_function(wrap_pyfunction!(event_queue::install_native_anext, module)?)?;
    module.add_class::<engine::PyEngine>()?;
    module.add_function(wrap_pyfunction!(listing::engine_tasks, module)?)?;
    module.add_function(wrap_pyfunction!(listing::engine_stalled, module)?)?;
    module.add_class::<task_ids::PyTaskIds>()?;
    module.add_class::<throughput::PyThroughput>()
}
