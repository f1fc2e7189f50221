//! The drivers: what moves items through kernels.
//!
//! A stream is a chain of *links*. The **pull** driver ([`pull`]) runs kernels on demand: one loop
//! asks the source for an item, feeds it to one kernel after another, and returns what comes out at
//! the end. The **push** driver ([`push`]) runs the same kernels on supply. Either way a stretch of
//! stock links is *fused*: one Rust loop and one call into Python for each callable of the user,
//! with no coroutine for a stage and no recursion, so that a line of 10,000 links runs.
//!
//! Between them stands [`merge`], which takes many streams as one.
//!
//! Both spend from one [`budget`], so that a stream which only ever finds ready items still lets
//! the loop turn.

pub(crate) mod budget;
pub(crate) mod merge;
pub(crate) mod pull;
pub(crate) mod push;
