//! The pull driver.
//!
//! | file | what it holds |
//! |---|---|
//! | [`link`] | `PullLink`, the base of every pull object |
//! | [`state`] | how a link stands: what it is made of, who waits for it, what it keeps |
//! | [`buffer_source`] | the same, where the link is the far end of a buffer |
//! | [`fusion`] | a line's hold on the links that it runs |
//! | [`closing`] | how a link is closed, by several at once too |
//! | [`control`] | what the Python classes ask of a link |
//! | [`pipeline`] | a fused stretch of links, and the loop that runs it |
//! | [`awaitable`] | `Pull`: one `anext()` |
//! | [`terminal`] | `collect()` and its kin: one awaitable that pulls a stream to its end |
//! | [`fifo`] | concurrent pulls, served in the order in which they came |
//! | [`suspended`] | a pull that is suspended, and where |
//!
//! # Cancellation
//!
//! A pull can be suspended in four places. What happens to the item there when the pull is
//! cancelled:
//!
//! * *in its turn* (another pull is under way): it has none; it gives up its place.
//! * *in a source of ours*: the item is still in the source; it is taken in the very step that
//!   delivers it.
//! * *in a callable*: the link that called it keeps the item, and the next pull calls the callable
//!   again with it.
//! * *in a foreign source*: an async generator is ended by the cancellation like any coroutine. The
//!   next pull says so (`SourceCancelledError`), since a clean end would hide the loss.

pub(crate) mod awaitable;
mod buffer_source;
pub(crate) mod circle;
pub(crate) mod closing;
pub(crate) mod control;
pub(crate) mod fifo;
pub(crate) mod fusion;
pub(crate) mod link;
pub(crate) mod pipeline;
pub(crate) mod state;
pub(crate) mod suspended;
pub(crate) mod terminal;
