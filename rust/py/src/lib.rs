//! `headrace._core`: the core of headrace as CPython sees it.
//!
//! | module | contents |
//! |---|---|
//! | [`object`] | Python objects: creation, borrowing, garbage collection, reuse and drop |
//! | [`runtime`] | the process, threads, event loops, tasks and the yield budget |
//! | [`coroutine`] | native awaitables, futures of the event loop, wake-ups from any thread |
//! | [`asyncio_task`] | asyncio tasks for the calls of a user's function |
//! | [`source`] | where items come from |
//! | [`kernel`] | one operator's logic: item in, zero or more items out |
//! | [`pull`], [`push`] | the drivers that run fused pipelines of kernels, on demand and on supply |
//! | [`merge`] | many sources as one |
//! | [`concurrent_map`] | the calls of a `map` with a `concurrency` |
//! | [`buffer`], [`signal`], [`capacity`] | the types of `headrace-core` for Python |
//! | [`graph`] | nodes that depend on each other, and their states |
//! | [`journal`] | journals of runs |
//! | [`line_writer`] | writing lines to a file |
//! | [`task`] | a callable with its arguments and options |
//! | [`asyncio_task`] | the asyncio tasks of calls, for `pool` and `concurrent_map` |
//! | [`pool`] | the engine of the task pool |
//! | [`concurrent_map`] | the calls of a `map` with a concurrency |
//! | [`worker`] | worker processes: their channel, their shared memory, their end |
//! | [`errors`] | exceptions |
//!
//! Unsafe code is in `coroutine/{type_object,type_slots,async_context,stop_iteration,delegate,future,self_test}`, in
//! `source/{mod,async_gen,async_iter,iter,deque,lines/codec}`, in `kernel/{callable,pending_batch}`, in `merge/task_context`, in
//! `pool/{envelope,event_queue,self_wait,start,task_body}`, in `object/{fast_attr,freelist,iterative_drop,gil_cell}`, in
//! `runtime/{asyncio,clock,interpreter,private_layout,stack_limit}`, in `pull/control`, in `task`, in `capacity/lease` and in
//! `worker/{cells,channel,lifeline}`. Each block states its reason.

mod asyncio_task;
mod buffer;
mod capacity;
mod concurrent_map;
mod coroutine;
mod errors;
mod graph;
mod journal;
mod kernel;
mod line_writer;
mod merge;
mod object;
mod pool;
mod pull;
mod push;
mod runtime;
mod signal;
mod source;
mod task;
mod worker;

use pyo3::prelude::*;

use coroutine::Native;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    runtime::interpreter::check(py)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    runtime::fork_guard::register(py)?;
    runtime::private_layout::register(module)?;
    coroutine::register(module)?;
    Native::<pull::awaitable::Pull>::register(py)?;
    Native::<pull::terminal::Terminal>::register(py)?;
    Native::<push::awaitable::Push>::register(py)?;
    Native::<push::foreign_sink::Delivering>::register(py)?;
    source::register_closing(py)?;
    Native::<merge::SourceTask>::register(py)?;
    kernel::register(module)?;
    signal::register(module)?;
    line_writer::register(module)?;
    buffer::register(module)?;
    capacity::register(module)?;
    journal::register(module)?;
    pool::register(module)?;
    concurrent_map::register(module)?;
    worker::register(module)?;
    module.add_class::<graph::PyGraphCore>()?;
    module.add_class::<task::base::PyTaskBase>()?;
    module.add_function(wrap_pyfunction!(task::base::set_lease_variable, module)?)?;
    module.add_class::<object::iterator_result::PyIteratorResult>()?;
    module.add_class::<pull::link::PyPullLink>()?;
    module.add_class::<source::PyDequeSource>()?;
    module.add_class::<source::PyIterSource>()?;
    module.add_class::<source::PyOnceSource>()?;
    module.add_class::<source::PyLinesSource>()?;
    module.add_class::<source::PyBufferSource>()?;
    module.add_class::<source::PyAsyncIterSource>()?;
    module.add_class::<merge::PyMerge>()?;
    module.add_class::<merge::PyMergeView>()?;
    module.add_class::<push::link::PyPushLink>()?;
    module.add_function(wrap_pyfunction!(object::failed_item::attach_item, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::adopt, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::stock, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::link_status, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::upstream, module)?)?;
    module.add_function(wrap_pyfunction!(pull::cycle::attach, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::check_closing, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::close_link, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::begin_closing, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::end_closing, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::await_closing, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::check_restart, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::restart, module)?)?;
    module.add_function(wrap_pyfunction!(pull::terminal::collect, module)?)?;
    module.add_function(wrap_pyfunction!(pull::terminal::count, module)?)?;
    module.add_function(wrap_pyfunction!(pull::terminal::for_each, module)?)?;
    module.add_function(wrap_pyfunction!(pull::terminal::reduce, module)?)?;
    module.add_function(wrap_pyfunction!(
        runtime::yield_budget::set_yield_budget,
        module
    )?)?;
    module.add_function(wrap_pyfunction!(runtime::task_id::known_tasks, module)?)?;
    module.add_class::<push::callbacks::PyCallbacks>()?;
    module.add_class::<push::foreign_sink::PyDelivery>()?;
    module.add_class::<push::fan::PyFan>()?;
    module.add_function(wrap_pyfunction!(push::drain::return_item, module)?)?;
    module.add_function(wrap_pyfunction!(push::link::end_push, module)?)?;
    module.add_function(wrap_pyfunction!(push::link::settle_push, module)?)?;
    module.add_function(wrap_pyfunction!(push::link::flush_push, module)?)?;
    module.add_function(wrap_pyfunction!(push::link::drop_push, module)?)?;
    Ok(())
}
