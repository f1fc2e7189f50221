//! The process, threads, event loops and tasks that the code runs in.

pub(crate) mod asyncio;
pub(crate) mod blocking_pool;
pub(crate) mod blocking_wait;
pub(crate) mod clock;
pub(crate) mod fork_guard;
pub(crate) mod interpreter;
pub(crate) mod private_layout;
pub(crate) mod stack_limit;
pub(crate) mod task_id;
pub(crate) mod yield_budget;
