//! Native awaitables.
//!
//! Each operation of headrace is a native object that CPython drives like a coroutine. Other modules rely on these rules:
//!
//! 1. **Creating an awaitable has no effect.** All work starts at the first await. An `anext()` that is never awaited, or is cancelled
//!    before its first step, takes no item and joins no wait queue.
//! 2. **A ready result needs no event-loop iteration.** The first step tries synchronously. It returns an available result, and the
//!    object goes to a free list.
//! 3. **A pending operation waits on a future of the running event loop** ([`Parked`]). The future is native, and a task accepts it like
//!    asyncio's own ([`future`]). `wait_for`, `shield`, `gather`, uvloop and eager tasks drive the awaitable by a task, and never use the
//!    future. An operation in the wait queue of a buffer yields once before it makes a future ([`Pending`]). After the wake-up, the
//!    core's future is polled again *on the event loop's thread*, inside the awaitable. An item leaves its buffer in the call that
//!    delivers it, so a cancelled await cannot lose it.
//! 4. **A waker holds no Python object** ([`park`]). On the event loop's thread it resolves the future immediately, and one callback
//!    resumes all waiters that were woken in the same iteration ([`wake_batch`]). On any other thread it puts a number in the mailbox of
//!    the event loop and notifies it once.
//!
//! | file | contents |
//! |---|---|
//! | [`type_object`] | the heap type with both slots, `am_send` and `tp_iternext`, and its free list |
//! | [`self_test`] | whether the free list works on this interpreter |
//! | [`type_slots`] | the C functions that the type points to |
//! | [`stop_iteration`] | the recycled `StopIteration` by which 3.12 to 3.14 deliver a value |
//! | [`async_context`] | an awaitable for `async with` |
//! | [`delegate`] | driving a foreign awaitable |
//! | [`loop_mailbox`] | the wake-ups of an event loop, from any thread |
//! | [`loop_registry`] | the mailbox of each event loop |
//! | [`future`] | the future that a task waits on |
//! | [`wake_batch`] | the wake-ups of one event-loop iteration, as one callback |
//! | [`park`] | a slot in a mailbox, with a future and a waker |
//! | [`pending`] | a future of the core that waits, for one event-loop iteration or longer |
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
pub(crate) use future::{CALLBACK_LAYOUT, PyFuture};
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

/// The result of one step of a coroutine.
#[derive(Debug)]
pub(crate) enum Step<'py> {
    /// The coroutine has returned this value.
    Return(Bound<'py, PyAny>),
    /// The coroutine waits: yield this object to the task unchanged. It is a future, or `None` for one event-loop iteration.
    Yield(Bound<'py, PyAny>),
}
