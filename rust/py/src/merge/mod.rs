//! Merges: many source streams read as one.
//!
//! | file | contents |
//! |---|---|
//! | [`merge`] | `PyMerge`: the sources and the methods that Python calls |
//! | [`state`] | the mutable state of a merge and its lists |
//! | [`source`] | the state of one source |
//! | [`step`] | steps a source to its next item, end or wait |
//! | [`pending`] | sources that wait for a future |
//! | [`yielding`] | sources that yield to the event loop for one iteration |
//! | [`callbacks`] | callbacks of the event loop |
//! | [`cancel`] | passes a task's cancellation into its source |
//! | [`close`] | closes sources |
//! | [`restart`] | restarts the original sources |
//! | [`source_error`] | attributes errors to their source |
//! | [`source_task`] | the coroutine of a source's task |
//! | [`task_context`] | the current task and context during a step |
//! | [`view`] | `PyMergeView`: reads the merged items by one policy |
//! | [`round_robin`] | policies that deliver one source's item at a time |
//! | [`zip`] | the policy that delivers a tuple of one item of each source |
//!
//! # Algorithm
//!
//! Each source has a [`SourceState`](source::SourceState). A pull first polls the sources in the list `to_poll`: it steps each
//! one in place, up to its next item, its end or a wait. The outcome is appended to the queue of the source, and the source to
//! the list `ready`. The pull then takes the first source of `ready`, and adds it to `to_poll` for the next pull. This gives:
//!
//! - An item costs one step and four queue operations, whatever the number of sources.
//! - Each source is read ahead by one item (`prefetch` sets the number).
//! - A source that gave an item is queued behind all other ready sources. So among `M` sources that are always ready, each
//!   gives an item within `M` pulls.
//!
//! A source that has never waited so far is *prompt*, and goes to the list `idle` instead: polling it early gains nothing.
//! Idle sources are polled in batches when no item is ready, or before any source in `to_poll`. So with sources that are always
//! ready, most pulls step no source. The cost of leaving the consumer's task and returning to it is paid once per batch.
//!
//! A source that waits is not polled. A callback on its future steps it, appends the outcome to its queue, and wakes the pull
//! that waits, if there is one. Sources that yield to the event loop with a bare `yield` are resumed together by one callback
//! ([`yielding`]). A pull that finds no item meanwhile yields for that iteration too. So `M` such sources give `M` items per
//! iteration. A cancelled pull leaves all outcomes in their queues, so no item is lost.
//!
//! The [`view`] chooses the next item by its policy ([`round_robin`], [`zip`]): the first that is ready; the next source in
//! the ring (round-robin, concat); the first that has given none in this round (fair); or one of each (zip). Several views may
//! share one merge.
//!
//! # Tasks and contexts
//!
//! A native source without callables (a buffer, another merge) and a sync iterable are polled in place, without a task. Any
//! other source may read its current task and context, and may hold a timeout, a task group or a context variable's token open
//! across its `yield`s. So it gets one task and one context for its whole life, before its first step. Each step runs under
//! them ([`task_context`]), wherever the step is made. The task itself runs a [`SourceTask`]: it waits, passes
//! cancellations into the source, and finally closes the source.
//!
//! # Invariants
//!
//! 1. Each source is in `to_poll`, idle, ready, waiting or closed; none is forgotten. The lists are hints: only the source's
//!    status decides whether it may be polled.
//! 2. A source is never stepped while a step of it is on the stack, nor outside its task and context.
//! 3. `live` counts the sources that are not closed, `active` those whose end was not taken. The stream ends when both are 0:
//!    then no task is left.
//! 4. No borrow of the state is open while a source, a future or a destructor runs.

mod callbacks;
mod cancel;
mod close;
#[expect(clippy::module_inception, reason = "one noun, one file")]
mod merge;
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

pub(crate) use merge::{PyMerge, own_source_error};
pub(crate) use source_task::SourceTask;
pub(crate) use view::PyMergeView;
