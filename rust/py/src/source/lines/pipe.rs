//! Batches on their way from the reading thread to the event loop.
//! `PyLinesSource` takes them; its jobs read through `reader.rs`.
//!
//! [`Job`]s read the file, one at a time. A job reads until [`PREFETCH`] batches are ready, and then ends: a stream that is not
//! pulled occupies no thread. The consumer starts the next job when it takes a batch and few are left.
//!
//! # Closing
//!
//! 1. The consumer requests a stop and empties the pipe. If no job is running, it drops the reader, which closes the file.
//! 2. A running job notices the request after its current read and drops the reader. *Then* it sets `is_busy` to false and wakes
//!    the waiters.
//!
//! # Wakers
//!
//! A waker holds the mailbox of an event loop, and so a reference to Python. A job wakes it but does not drop it: the consumer
//! collects the used wakers. Only if the pipe is closed, the job attaches to the interpreter to drop them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::input::Stop;
use super::reader::{BATCH, Batch, Failure, Reader};
use crate::runtime::blocking_pool;

/// The most batches that are read ahead.
pub(super) const PREFETCH: usize = 4;

/// The number of ready batches at which the next job is started.
const LOW: usize = 1;

#[derive(Debug, Default)]
struct State {
    /// Present between two jobs; `None` while a job runs and after the end.
    reader: Option<Reader>,
    /// Whether a job has the reader.
    is_busy: bool,
    ready: VecDeque<Batch>,
    /// The end or the failure behind the ready batches.
    outcome: Option<Outcome>,
    /// Buffers for reuse.
    spare: Vec<Vec<u8>>,
    /// The waker of the pull that waits for a batch.
    pull: Option<Waker>,
    /// The wakers of those that wait for the job to end.
    closers: Vec<Waker>,
    /// Used wakers, to be dropped on an attached thread.
    spent: Vec<Waker>,
    is_closed: bool,
}

#[derive(Debug)]
enum Outcome {
    End,
    Failed(Failure),
}

/// The batches of one open file.
#[derive(Debug)]
pub(super) struct Pipe {
    stop: Arc<Stop>,
    /// No Python code runs and no file is read under this lock.
    state: Mutex<State>,
}

/// The result of [`Pipe::take`].
#[derive(Debug)]
pub(super) enum Taken {
    Batch(Batch),
    Failed(Failure),
    End,
    /// No batch is ready yet.
    Empty,
}

impl Pipe {
    pub(super) fn new(make: impl FnOnce(Arc<Stop>) -> Reader) -> Arc<Self> {
        let stop = Arc::new(Stop::default());
        let reader = make(Arc::clone(&stop));
        Arc::new(Self {
            stop,
            state: Mutex::new(State {
                reader: Some(reader),
                ..State::default()
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take the next batch in exchange for the buffer of the last one. Also returns a job if the caller must start one.
    pub(super) fn take(self: &Arc<Self>, used: Vec<u8>) -> (Taken, Option<Job>) {
        let mut state = self.lock();
        // A buffer that was enlarged for a long line is not kept.
        if (BATCH / 2..=BATCH * 2).contains(&used.len()) && state.spare.len() < PREFETCH {
            state.spare.push(used);
        }
        let taken = if let Some(batch) = state.ready.pop_front() {
            Taken::Batch(batch)
        } else {
            match state.outcome.as_mut() {
                None => Taken::Empty,
                // A failure is reported once.
                Some(outcome) => match std::mem::replace(outcome, Outcome::End) {
                    Outcome::End => Taken::End,
                    Outcome::Failed(failure) => Taken::Failed(failure),
                },
            }
        };
        let job = if state.ready.len() <= LOW {
            state.reader.take().map(|reader| Job {
                pipe: Arc::clone(self),
                reader: Some(reader),
            })
        } else {
            None
        };
        state.is_busy |= job.is_some();
        (taken, job)
    }

    /// Register `waker` to be woken when there is something to take. Returns `false` if there already is.
    pub(super) fn wait(&self, waker: Waker) -> bool {
        let mut state = self.lock();
        let is_empty = state.ready.is_empty() && state.outcome.is_none() && !state.is_closed;
        let old = if is_empty {
            state.pull.replace(waker)
        } else {
            Some(waker)
        };
        let spent = std::mem::take(&mut state.spent);
        drop(state);
        drop((old, spent));
        is_empty
    }

    /// Close the pipe: see the top of this file. Must be called on an attached thread.
    pub(super) fn close(&self) {
        self.stop.request();
        let mut state = self.lock();
        state.is_closed = true;
        let dropped = (
            state.reader.take(),
            std::mem::take(&mut state.ready),
            std::mem::take(&mut state.spare),
            state.pull.take(),
            std::mem::take(&mut state.spent),
        );
        state.outcome = Some(Outcome::End);
        drop(state);
        drop(dropped);
    }

    /// Return whether a job has the file open.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().is_busy
    }

    /// Register `waker` to be woken when the running job has closed the file. Returns `false` if no job is running.
    pub(super) fn wait_for_job(&self, waker: Waker) -> bool {
        let mut state = self.lock();
        let is_busy = state.is_busy;
        if is_busy {
            state.closers.push(waker);
        }
        is_busy
    }

    /// Wake waiters, on the thread of a job.
    fn wake(&self, wakers: Vec<Waker>) {
        blocking_pool::wake(wakers, |spent| {
            let mut state = self.lock();
            if state.is_closed {
                // The waiter of a closed pipe does not collect used wakers.
                return Some(spent);
            }
            state.spent.extend(spent);
            None
        });
    }
}

/// Reads until enough batches are ready.
#[derive(Debug)]
pub(super) struct Job {
    pipe: Arc<Pipe>,
    /// `None` after it was put back or dropped.
    reader: Option<Reader>,
}

impl Job {
    pub(super) fn run(mut self) {
        while let Some(bytes) = self.next_buffer() {
            let Some(reader) = &mut self.reader else {
                return;
            };
            let outcome = match reader.next(bytes) {
                Ok(Some(batch)) => {
                    let mut state = self.pipe.lock();
                    if state.is_closed {
                        return;
                    }
                    state.ready.push_back(batch);
                    let waker = state.pull.take();
                    drop(state);
                    self.pipe.wake(waker.into_iter().collect());
                    continue;
                }
                Ok(None) => Outcome::End,
                Err(failure) => Outcome::Failed(failure),
            };
            self.finish(outcome);
            return;
        }
    }

    /// Return a buffer for the next batch; or put the reader back and return `None` if enough batches are ready.
    fn next_buffer(&mut self) -> Option<Vec<u8>> {
        let mut state = self.pipe.lock();
        if state.is_closed {
            return None;
        }
        if state.ready.len() < PREFETCH {
            return Some(state.spare.pop().unwrap_or_default());
        }
        state.reader = self.reader.take();
        state.is_busy = false;
        None
    }

    /// Close the file, then record that and wake the waiters.
    fn finish(&mut self, outcome: Outcome) {
        drop(self.reader.take());
        let mut state = self.pipe.lock();
        state.is_busy = false;
        if !state.is_closed {
            state.outcome = Some(outcome);
        }
        let mut wakers = std::mem::take(&mut state.closers);
        wakers.extend(state.pull.take());
        drop(state);
        self.pipe.wake(wakers);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // If the reader is still present, the job was closed, panicked or never ran.
        if self.reader.is_some() {
            self.finish(Outcome::Failed(Failure::Died));
        }
    }
}
