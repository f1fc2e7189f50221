//! The push driver.
//!
//! | file | what it holds |
//! |---|---|
//! | [`link`] | `PushLink`, the base of every push object |
//! | [`line`] | a fused stretch of links, down to where items leave it |
//! | [`awaitable`] | `Push`: one `next(item)` |
//!
//! A push keeps nothing. Until the sink below has accepted the item it is the caller's: a push that
//! is cancelled or fails has delivered it whole or not at all, and an error that refuses it carries
//! it. Pushes are not serialised; each is a flight of its own.

pub(crate) mod awaitable;
pub(crate) mod line;
pub(crate) mod link;
