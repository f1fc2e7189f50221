//! Asyncio tasks that the core makes for the calls of a user's function.
//!
//! A task of the pool and a call of a concurrent `map` run in an asyncio task of their own, in a context of their own. Its first step
//! is taken while it is made. CPython does that from 3.12 on (`eager_start`). Before 3.12 the core takes that step, with the new task as
//! the current one and its context entered; the asyncio task then gets the stored result. So a call that does not wait ends at once,
//! and a call that waits registers its wait one event-loop iteration earlier.
//!
//! | file | contents |
//! |---|---|
//! | [`task_factory`] | the construction of asyncio tasks, and their first step |
//! | [`task_coroutine`] | the coroutine of an asyncio task, over the [`Body`] of its user |
//! | [`first_step`] | the object that a task awaits after a first step that the core took |

mod first_step;
mod task_coroutine;
mod task_factory;

pub(crate) use task_coroutine::{Body, TaskCoroutine};
pub(crate) use task_factory::{Options, TaskFactory};
