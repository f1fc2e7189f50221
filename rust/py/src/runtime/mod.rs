//! The process, threads, event loops and tasks that the code runs in.
//!
//! | file | contents |
//! |---|---|
//! | [`asyncio`] | the functions of asyncio that the core calls |
//! | [`blocking_pool`] | threads for blocking work |
//! | [`blocking_wait`] | waiting in a thread without an event loop |
//! | [`clock`] | the time of an event loop |
//! | [`fork_guard`] | refusal of use in a forked child |
//! | [`interpreter`] | refusal of subinterpreters |
//! | [`nesting`] | how deeply calls are nested on the stack |
//! | [`private_layout`] | self-tests of private layouts of CPython |
//! | [`stack_limit`] | the limit of nested streams |
//! | [`task_id`] | the identity of the calling task or thread |
//! | [`yield_budget`] | when a stream of ready items yields |

pub(crate) mod asyncio;
pub(crate) mod blocking_pool;
pub(crate) mod blocking_wait;
pub(crate) mod clock;
pub(crate) mod fork_guard;
pub(crate) mod interpreter;
pub(crate) mod nesting;
pub(crate) mod private_layout;
pub(crate) mod stack_limit;
pub(crate) mod task_id;
pub(crate) mod yield_budget;
