//! The parts of a pool of worker processes that need no Python: the handshake between a driver and a worker, and their frames.
//!
//! # The handshake
//!
//! A driver sends tasks to a worker ahead of time, so that the worker never waits for the driver. It must be able to take a task
//! back that has not begun: because it was cancelled, or because another worker is idle. And when a worker dies, the driver must
//! know exactly which of its tasks had begun, since these may have had effects.
//!
//! Messages cannot decide this: a message that takes a task back crosses the message that says that it has begun. So driver and
//! worker share a [`Cell`] of memory. Each task that is sent to a worker has a position, 1, 2, 3 and so on, and the worker begins
//! them in this order. The cell has the last position that has begun, and a ring of vetoes.
//!
//! 1. The worker stores the position in `begun`, then loads the veto of that position.
//! 2. The driver stores the veto of a position, then loads `begun`.
//!
//! Each side has a sequentially consistent fence between the two, so at least one side sees the other:
//!
//! | driver sees | worker sees | outcome |
//! |---|---|---|
//! | not begun | the veto | the task was taken back; the worker skips it |
//! | begun | no veto | the task runs |
//! | begun | the veto | the worker skips the task and answers so; until then the driver waits for either answer |
//!
//! *Invariant*: a task that the driver has taken back never begins. It gets a new position when it is sent again, to any worker, so
//! a veto is never removed: the ring forgets it when a later position has its slot. A driver keeps at most as many unanswered
//! positions at a worker as the ring has slots, and so no veto of a position that has not begun is overwritten.
//!
//! The cell outlives the worker. When the worker is dead, `begun` is final: all its unanswered positions up to it have begun, the
//! others have not.
//!
//! `tests/loom_worker.rs` explores all interleavings.
//!
//! # The frames
//!
//! [`frame`] has the format. A frame has a kind, a position and any number of parts. A part of a large frame is read into its final
//! memory, without a second copy.
//!
//! # The lease of a host
//!
//! A host is a process on another machine with workers of its own. When the network is cut, the driver cannot end them, and no answer is
//! no proof that they have ended. So next to each host runs a watchdog that ends its work when the driver was not heard for the time
//! `fence`, and the driver must know when that has happened. [`lease`] has both sides:
//!
//! 1. The watchdog sends *stamps*, times of its own clock, and the driver echoes each at once.
//! 2. The lease ends at the last echoed stamp plus `fence`. Then the watchdog ends all work, within [`lease::ENDING`].
//! 3. The driver notes when a stamp arrives that it echoes. After the last of them plus `fence` and a margin, the work has ended.
//!
//! *Proof*: a stamp is made before it arrives at the driver. The end of the lease is a stamp that the driver has echoed, plus `fence`, so
//! it is before the arrival of the last echoed stamp plus `fence`. This compares durations of two clocks and never their times, and it
//! holds for any delay of any byte: an echo that arrives late still has the old stamp.
//!
//! Three cases need care:
//!
//! - The first echo may be lost. So the watchdog counts from its first stamp as if it had been echoed.
//! - Before the first stamp the lease ends at the start-up time of the watchdog, which has started before the driver has connected.
//! - A driver that was suspended finds old stamps when it goes on. It looks at the time first, and echoes nothing after it has decided.
//!
//! The clocks must count while a machine sleeps. The rates of two clocks may differ by a twentieth. `tests/lease.rs` has a model of a network
//! with any delays, losses of the connection, offsets and rates of clocks.

mod cell;
pub mod frame;
pub mod lease;

pub use cell::{Cell, MIN_WORDS};
pub use frame::{Decoder, Frame, FrameError};
