//! The push driver: runs a fused pipeline of kernels on supply, once for each pushed item.
//!
//! | file | contents |
//! |---|---|
//! | [`link`] | `PyPushLink`, the native base of every push object |
//! | [`pipeline`] | `Pipeline`: a fused stretch of links, and the end where items leave it |
//! | [`work_stack`] | `PushState`: the remaining work of one push |
//! | [`deliver`] | delivering one item: through the stages, to the sink at the end |
//! | [`wait`] | the waits of a push, before and after they start |
//! | [`resume`] | how a push starts to wait, is resumed, or is abandoned |
//! | [`awaitable`] | `Push`: the awaitable of one `next(item)`, or of the flush before the end |
//! | [`nowait`] | pushing one item without waiting |
//! | [`fan`] | `PyFan`: one pipeline into many sinks |
//! | [`branch`] | `Branch`: one of the sinks of a fan |
//! | [`callbacks`] | `PyCallbacks`: a sink made of callables |
//! | [`foreign_sink`] | `PyDelivery`: pushes into any sink, and the links that accepted the item of a failed push |
//! | [`drain`] | returns an item to a stream that is drained into a sink |
//! | [`cycle`] | rejects a push object that is its own sink |
//!
//! # The path of an item
//!
//! 1. `PyPushLink::next` creates a `Push` with `Push::make`. Nothing runs yet.
//! 2. The task awaits it: `Push::send`. If the pipeline is only a buffer, `Push::store` puts the item
//!    there. Otherwise `Push::step` calls `Push::begin`, which takes the pipeline
//!    (`PyPushLink::open_pipeline`, built at the first push) and charges the yield budget.
//! 3. `Pipeline::run` calls `Pipeline::run_until_wait`, and that calls `Pipeline::run_stages`: each
//!    stage's kernel processes the item. An emitted item enters the next stage. `Pipeline::on_output`
//!    handles all other outputs, such as several items (they go on the stack) or the end.
//!    `PushState::set_checkpoint` records the output of a stateful stage.
//! 4. `Pipeline::deliver_to_end` delivers the item: to a list, a buffer, callbacks, a fan
//!    (`PyFan::deliver`, then `Branch::push`), or a foreign sink.
//! 5. `Pipeline::on_delivered` handles the sink's result. `Pipeline::next_work` takes the next entry of
//!    the stack, back to step 3. With an empty stack `InFlight::finish` returns the `PyIteratorResult`.
//! 6. If the item must wait, step 3 or 4 returns a `PendingWait`. `Pipeline::start_wait` starts it; if
//!    it suspends, `Push::suspend` keeps a `SuspendPoint`. The next `send` or `throw` goes through
//!    `Push::resume` and `Pipeline::resume`, and returns to step 3 or 5.
//! 7. If the push fails, `InFlight::fail` retains consumed outputs in their links
//!    (`Pipeline::retain_rest`), and names these links in the error.
//!
//! # Ownership and cancellation
//!
//! At any time an item is in exactly one place. Concurrent pushes are independent of each other.
//!
//! | the item | its owner if the push fails or is cancelled |
//! |---|---|
//! | not consumed yet | the caller; an error that rejects the item carries it |
//! | accepted by a sink | the sink |
//! | consumed by a stateful stage (a window, a set of keys) | the stage, since it must not process an item twice |
//! | output of a stateful stage, not accepted downstream | the stage's link retains it |
//!
//! A retained output is delivered before the next item that passes the link, or by the flush at the
//! end. The error of the failed push names the link in its `accepted_by`.

pub(crate) mod awaitable;
mod branch;
pub(crate) mod callbacks;
mod cycle;
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
