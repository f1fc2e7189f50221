//! What Python awaits.
//!
//! Every operation of headrace is a native object that CPython drives like a coroutine. The rules,
//! which the other rooms rely on:
//!
//! 1. **Making one does nothing.** All work happens when it is first awaited, so an `anext()` that
//!    nobody awaits, or that is cancelled before it starts, takes no item and no place in any
//!    queue.
//! 2. **Ready costs no loop.** The first step tries synchronously; a result comes back in that very
//!    call, and the object goes to a free list.
//! 3. **Pending waits on a future of the running loop** ([`Parked`]), one of our own that a task takes as
//!    it takes asyncio's ([`future`]). `wait_for`, `shield`, `gather`, uvloop and eager tasks drive the
//!    awaitable by a task, and never meet it. What stands in a line of a buffer lets the loop turn once
//!    before it makes one ([`Pending`]). When it wakes, the core's future is polled again *on the loop's
//!    thread*, inside the awaitable: an item leaves its buffer in the call that delivers it, so a
//!    cancelled await cannot lose it.
//! 4. **A waker holds no Python object** ([`park`]). On the loop's own thread it resolves the
//!    future at once, and the loop steps all who were woken in one turn by one call ([`wake_batch`]); from
//!    any other it leaves a number in the loop's mailbox and rings once.
//!
//! | file | what it holds |
//! |---|---|
//! | [`type_object`] | the heap type with both slots, `am_send` and `tp_iternext`, and its free list |
//! | [`self_test`] | whether the free list works on this interpreter |
//! | [`type_slots`] | the C functions that the type points to |
//! | [`stop_iteration`] | the recycled `StopIteration` by which 3.12 to 3.14 deliver a value |
//! | [`async_context`] | an awaitable that `async with` takes |
//! | [`delegate`] | driving somebody else's awaitable |
//! | [`loop_mailbox`] | where a loop gets its wake-ups, from any thread |
//! | [`loop_registry`] | where the mailbox of a loop is found |
//! | [`future`] | what a task waits on |
//! | [`wake_batch`] | the wake-ups of one turn, called together |
//! | [`park`] | a place there, with a future and a waker |
//! | [`pending`] | a future of the core that waits, for one turn of the loop or for longer |
//! | [`operation`] | an awaitable over a future of the core |

pub(crate) mod async_context;
pub(crate) mod delegate;
mod future;
mod loop_mailbox;
mod loop_registry;
pub(crate) mod operation;
pub(crate) mod park;
pub(crate) mod pending;
mod self_test;
pub(crate) mod stop_iteration;
pub(crate) mod type_object;
mod type_slots;
mod wake_batch;

use pyo3::prelude::*;

pub(crate) use delegate::Inner;
pub(crate) use future::{CALLBACK_LAYOUT, Future};
pub(crate) use loop_mailbox::{forget_after_fork, with_saved_exception};
pub(crate) use loop_registry::{pin_to_loop, unpin};
pub(crate) use park::Parked;
pub(crate) use pending::Pending;
pub(crate) use type_object::{Class, Coroutine, Native, own_class};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    future::register(module.py())?;
    async_context::register(module.py())?;
    loop_registry::register(module)
}

/// What one step of a coroutine came to.
#[derive(Debug)]
pub(crate) enum Step<'py> {
    /// It is finished, with this value.
    Return(Bound<'py, PyAny>),
    /// It waits: hand this object (a future, or `None` for one turn) up to whoever drives the task,
    /// untouched.
    Yield(Bound<'py, PyAny>),
}
