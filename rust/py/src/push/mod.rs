//! The push driver.
//!
//! | file | what it holds |
//! |---|---|
//! | [`link`] | `PushLink`, the base of every push object |
//! | [`pipeline`] | a fused stretch of links, down to where items leave it |
//! | [`work_stack`] | what one push still has to do, and what is kept of it if it cannot |
//! | [`deliver`] | one item on its way down a line |
//! | [`wait`] | where a push waits |
//! | [`resume`] | how it goes on there |
//! | [`awaitable`] | `Push`: one `next(item)`, or the flush before the end |
//! | [`nowait`] | one `next_nowait(item)` |
//! | [`fan`] | one line into many |
//! | [`branch`] | one of the many |
//! | [`callbacks`] | callables that are a sink |
//! | [`foreign_sink`] | a push into a sink of anybody's, and who has its item if it goes wrong |
//! | [`drain`] | how a stream that is drained into a sink gets an item back |
//!
//! Until something below has taken the item it is the caller's: a push that is cancelled or fails
//! has delivered it whole or not at all, and an error that refuses it carries it. What takes items
//! is a sink, or a stage that keeps state (a window, a set of keys), since an item cannot be fed to
//! such a stage twice. If a push is cancelled below that stage, what the stage made of the item is
//! kept at its link. It goes on with the next push that comes by, or with the end, and the error
//! names the link in its `accepted_by`. So each item is in exactly one place at any time.
//!
//! Pushes are not serialised; each is a flight of its own.

pub(crate) mod awaitable;
mod branch;
pub(crate) mod callbacks;
mod circle;
mod deliver;
pub(crate) mod drain;
pub(crate) mod fan;
pub(crate) mod foreign_sink;
pub(crate) mod link;
mod nowait;
pub(crate) mod pipeline;
mod resume;
mod wait;
mod work_stack;
