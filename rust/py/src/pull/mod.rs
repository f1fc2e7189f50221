//! The pull driver: runs a fused pipeline of kernels on demand, one item for each pull.
//!
//! | file | contents |
//! |---|---|
//! | [`link`] | `PyPullLink`, the native base of every pull object |
//! | [`state`] | `LinkState`: a link's origin, lock and held items |
//! | [`pipeline`] | `Pipeline`: a fused stretch of links, and the loop that runs it |
//! | [`fusion`] | `FusionGuard`: a pipeline's revocable right to run its links |
//! | [`fifo`] | `FifoLock`: concurrent pulls are served in FIFO order |
//! | [`awaitable`] | `Pull`: the awaitable of one `anext()` |
//! | [`source_pull`] | `SourcePull`: the pulls of a native coroutine |
//! | [`start`] | the first step of a pull: lock, pipeline, or the slow path |
//! | [`suspended`] | `SuspendedPull`: where a pull is suspended, and how it is resumed |
//! | [`pending`] | input that precedes the source's next item |
//! | [`buffer_source`] | a pull whose source is a buffer |
//! | [`terminal`] | `collect()` and others: one awaitable that consumes a whole stream |
//! | [`closing`] | the native steps of `aclose()` |
//! | [`control`] | functions for the Python classes: fast `anext()`, inspection, restart |
//! | [`cycle`] | rejects a stream that is its own source |
//!
//! # The path of an item
//!
//! 1. `PyPullLink.__anext__` (natively [`control::anext`](control)) creates a `Pull` with `Pull::make`. Nothing runs yet.
//! 2. The task awaits it: `Pull::send` calls `Pull::begin` for the first step.
//! 3. `Pull::start` calls `LinkState::start`. It checks the link's phase and thread, acquires the
//!    `FifoLock` and takes the `Pipeline`. If a check fails, `Pull::begin_slowly` binds the event
//!    loop, builds the pipeline (`Pipeline::build`) or waits in the queue (`Pull::queue`).
//! 4. `Pipeline::advance` runs the loop. `Pipeline::next_input` yields pending items first. Otherwise
//!    the yield budget is charged and the source is polled; `Pipeline::on_source` handles an end, a
//!    wait or an error.
//! 5. Each stage's kernel processes the item. An emitted item enters the next stage; a skipped one
//!    returns to step 4. `Pipeline::on_output` handles all other outputs, such as several items or
//!    the end. An awaitable goes through `Pipeline::begin_await` and `Pipeline::on_step`. An error
//!    goes through `Stage::annotate` and `Pipeline::route_error` to the next `catch()`.
//! 6. After the last stage `advance` returns the item. `LinkState::stop` returns the pipeline to the
//!    link and releases the lock, and `Pull::begin` returns the item to the task.
//! 7. If the source or a callable waits, `Pull::finish` stores a `SuspendedPull` in the link and
//!    yields the awaited object to the task. The next `send` or `throw` goes through `Pull::resume`
//!    and `Pipeline::resume`, and returns to step 4 or 5.
//!
//! # Cancellation
//!
//! A pull can be suspended at five points. The table says what happens to the item if the pull is
//! cancelled there.
//!
//! | suspended | the item after a cancellation |
//! |---|---|
//! | in the FIFO queue, behind another pull | the pull has no item; it leaves the queue |
//! | for the yield budget | the pull has no item |
//! | in a native source | the item is still in the source: it leaves in the step that delivers it |
//! | in a callable | the link that called it retains the item; the next pull calls it again with that item |
//! | in a foreign source | an async generator is ended by the cancellation, like any coroutine; the next pull raises `SourceCancelledError`, since a clean end would hide the loss |

pub(crate) mod awaitable;
mod buffer_source;
pub(crate) mod closing;
pub(crate) mod control;
pub(crate) mod cycle;
pub(crate) mod fifo;
pub(crate) mod fusion;
pub(crate) mod link;
mod pending;
pub(crate) mod pipeline;
pub(crate) mod source_pull;
mod start;
pub(crate) mod state;
pub(crate) mod suspended;
pub(crate) mod terminal;
