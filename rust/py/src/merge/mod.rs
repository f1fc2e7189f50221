//! Many streams into one.
//!
//! | file | what it holds |
//! |---|---|
//! | [`merge`] | `Merge`: the sources, and what Python asks of them |
//! | [`state`] | what of it changes |
//! | [`step`] | how a source is driven |
//! | [`pending`] | those that wait for a future |
//! | [`yielding`] | those that only let the loop have a turn |
//! | [`cancel`] | how it hears that its task was cancelled |
//! | [`close`] | how it is closed |
//! | [`restart`] | how it begins anew |
//! | [`source_error`] | errors of sources: whose they are, and whom they reach |
//! | [`view`] | `MergeFeed`: a view, which takes what they give |
//! | [`nesting`] | how many of them are inside one another |
//! | [`round_robin`] | whose item is the next one: races and turns |
//! | [`zip`] | one of each: the rows of a zip |
//! | [`source`] | one source |
//! | [`task_context`] | the task and the context under which it runs |
//! | [`source_task`] | what that task runs |
//! | [`callbacks`] | what the loop calls when it can go on |
//!
//! # How it works
//!
//! Each source has a [`source`]. A pull asks those that are *wanted*: it steps each in place, up to
//! its next item, its end, or a wait. What came is put into the queue of the slot, and the slot at
//! the end of the list of those that are *ready*. The pull takes the first of that list, and its
//! source is wanted again, by the next pull. So an item costs one step and four queue operations,
//! whatever the number of sources; what is read ahead is one item a source (`prefetch` says how many);
//! and since a source that gave an item stands behind all others that are ready, among `M` sources
//! that are always ready each gives its item within `M` pulls.
//!
//! A source that has given everything at once so far is *idle* instead: to ask it early would win
//! nothing. Those are asked when there is nothing left to be taken, many of them one after another,
//! or before anybody who is wanted. So most pulls of sources that are always ready step none, and
//! what it takes to leave the consumer's task and come back to it is paid once for many of them.
//!
//! A source that waits is left alone: a callback on what it waits for steps it when that is there,
//! puts what comes into its queue, and wakes the pull that waits, if one does. Those that wait for
//! nothing but a turn of the loop go on together, in one callback ([`yielding`]); and a pull that finds
//! nothing while they do rests for that turn too. So with `M` such sources a turn gives `M` items. A
//! pull that is cancelled leaves everything where it is, so nothing is lost.
//!
//! How the next item is chosen is the *view*'s business ([`view`], [`round_robin`], [`zip`]): the first that is ready (race),
//! the next in the ring (round-robin, concat), the first that had none in this round (race-robin),
//! one of each (zip). Several views may share one merge.
//!
//! # Identity
//!
//! A native source without callables (a buffer, another merge) and a sync iterable are polled in
//! place, and that is all. Any other source may look at its task and its context, and may hold a
//! timeout, a task group or a token open across its `yield`s. It gets one task and one context for
//! its whole life, before its first step, and each step of it runs under them ([`task_context`]),
//! wherever it is made. The task runs nothing but an [`source_task`]: it waits, hears of cancellations
//! and passes them on into the source, and in the end closes it.
//!
//! # Invariants
//!
//! * A slot is wanted, idle, ready, waiting or closed: none is forgotten. The lists hold hints; whether a
//!   slot may be asked says its status alone.
//! * A source is never stepped while a step of it is on the stack, nor outside its identity.
//! * `live` counts what is not closed, `active` those whose end was not taken. The end is given when
//!   both are 0: then no task is left.
//! * No borrow of the state is open while a source, a future or a destructor runs.

mod callbacks;
mod cancel;
mod close;
#[expect(clippy::module_inception, reason = "the noun of this room")]
mod merge;
mod nesting;
mod pending;
mod restart;
mod round_robin;
mod source;
mod source_error;
mod source_task;
mod state;
mod step;
pub(crate) mod task_context;
mod view;
mod yielding;
mod zip;

pub(crate) use merge::{Merge, own_source};
pub(crate) use source_task::Anchor;
pub(crate) use view::MergeFeed;
