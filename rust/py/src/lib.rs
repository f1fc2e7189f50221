//! `headrace._core`: the core of headrace as CPython sees it.
//!
//! | room | what it gives |
//! |---|---|
//! | [`awaitable`] | what Python awaits: native coroutines, futures of the loop, wake-ups from any thread |
//! | [`feed`] | where items come from |
//! | [`kernel`] | what an operator does with one item |
//! | [`drive`] | what moves items through kernels, on demand and on supply |
//! | [`buffer`], [`queue`], [`signal`], [`capacity`] | the structures of `headrace-core`, one thin file each |
//! | [`pool`] | the tasks of a pool that ask for nothing special |
//! | [`result`], [`errors`] | what comes back, and what is raised |
//! | [`writer`] | lines on their way into a file |
//! | [`runtime`] | threads for what blocks |
//! | [`layout`] | which private layouts of CPython are in use, and the public API instead of the others |
//! | [`asyncio`], [`deep`], [`fork`], [`gc`], [`gil`], [`number`], [`owner`], [`recycled`], [`stack`], [`thread`] | what all of them stand on |
//!
//! Unsafe code is in `awaitable/{native,slots,context,stop,inner,future,self_test}`, in `layout`, `clock` and `drive/pull/control`, in
//! `feed/{agen,foreign,iter,store,lines/codec}`, in `drive/merge/identity`, in `pool/lane`, in `recycled`, `deep`, `capacity/lease`, `asyncio`, `stack` and `gil`, each block with
//! its reason.

mod asyncio;
mod awaitable;
mod buffer;
mod capacity;
mod clock;
mod deep;
mod drive;
mod errors;
mod feed;
mod fork;
mod gc;
mod gil;
mod kernel;
mod layout;
mod number;
mod owner;
mod pool;
mod queue;
mod recycled;
mod result;
mod runtime;
mod signal;
mod stack;
mod thread;
mod writer;

use pyo3::prelude::*;

use awaitable::Native;
use drive::{merge, pull, push};

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    fork::register(py)?;
    layout::register(module)?;
    awaitable::register(module)?;
    Native::<pull::awaitable::Pull>::register(py)?;
    Native::<pull::terminal::Terminal>::register(py)?;
    Native::<push::awaitable::Push>::register(py)?;
    Native::<push::delivery::Delivering>::register(py)?;
    feed::register_closing(py)?;
    Native::<merge::Anchor>::register(py)?;
    kernel::register(module)?;
    signal::register(module)?;
    writer::register(module)?;
    queue::register(module)?;
    capacity::register(module)?;
    pool::register(module)?;
    module.add_class::<buffer::Buffer>()?;
    module.add_class::<result::IteratorResult>()?;
    module.add_class::<pull::link::PullLink>()?;
    module.add_class::<feed::StoreFeed>()?;
    module.add_class::<feed::IterFeed>()?;
    module.add_class::<feed::CacheFeed>()?;
    module.add_class::<feed::LinesFeed>()?;
    module.add_class::<feed::QueueFeed>()?;
    module.add_class::<feed::ForeignFeed>()?;
    module.add_class::<merge::Merge>()?;
    module.add_class::<merge::MergeFeed>()?;
    module.add_class::<push::link::PushLink>()?;
    module.add_function(wrap_pyfunction!(pull::control::adopt, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::stock, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::standing, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::upstream, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::check_closing, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::shut, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::begin_closing, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::end_closing, module)?)?;
    module.add_function(wrap_pyfunction!(pull::closing::await_closing, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::check_restart, module)?)?;
    module.add_function(wrap_pyfunction!(pull::control::restart, module)?)?;
    module.add_function(wrap_pyfunction!(pull::terminal::collect, module)?)?;
    module.add_function(wrap_pyfunction!(pull::terminal::count, module)?)?;
    module.add_function(wrap_pyfunction!(pull::terminal::for_each, module)?)?;
    module.add_function(wrap_pyfunction!(pull::terminal::reduce_all, module)?)?;
    module.add_function(wrap_pyfunction!(drive::budget::set_turn_budget, module)?)?;
    module.add_class::<push::callbacks::Callbacks>()?;
    module.add_class::<push::delivery::Delivery>()?;
    module.add_class::<push::fan::Fan>()?;
    module.add_function(wrap_pyfunction!(push::drain::hand_back, module)?)?;
    module.add_function(wrap_pyfunction!(push::link::end_push, module)?)?;
    module.add_function(wrap_pyfunction!(push::link::settle_push, module)?)?;
    module.add_function(wrap_pyfunction!(push::link::flush_push, module)?)?;
    module.add_function(wrap_pyfunction!(push::link::drop_push, module)?)?;
    Ok(())
}
