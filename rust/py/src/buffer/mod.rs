//! The buffer between producers and consumers, as Python sees it.
//!
//! In a buffer in order of priority, comparing runs Python code. The core never does so under its
//! lock, see [`headrace_core::buffer`]; here is only how two items are compared: by `<`, or by `<`
//! of what `key` made of them. A key is computed once, before the push, and travels beside its item
//! in a tuple.
//!
//! | file | what it holds |
//! |---|---|
//! | [`buffer`] | the buffer |
//! | [`order`] | what it is told by name, and how two items are compared |
//! | [`put`] | a push that waits for room, and why an item was not accepted |
//! | [`get_sync`] | taking in a thread that waits |

#[expect(clippy::module_inception, reason = "one noun, one file")]
mod buffer;
mod get_sync;
mod order;
mod put;

pub(crate) use buffer::{Buffer, show_items};
pub(crate) use get_sync::take_sync;
pub(crate) use order::{by_priority, incomparable};
pub(crate) use put::Putting;
