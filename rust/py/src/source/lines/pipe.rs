//! Batches on their way from the thread that reads to the loop that wants them.
//!
//! The file is read by [`Job`]s, one at a time. A job reads until [`AHEAD`] batches wait; then it
//! ends, so that a stream that nobody pulls keeps no thread. The consumer starts the next one when
//! it takes a batch and few are left.
//!
//! # Closing
//!
//! 1. The consumer asks to stop and empties the pipe. If no job runs, it drops the reader, and with
//!    it the file, there and then.
//! 2. A job that runs sees it after the read that it is in, drops the reader, and *then* says that
//!    it is done and wakes who waits for that.
//!
//! # Wakers
//!
//! A waker holds a loop's mailbox, and so a reference to Python. It is woken here but not dropped
//! here: the consumer's side takes back what is spent. Only if that is gone already, the job
//! attaches to drop it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::input::Stop;
use super::reader::{BATCH, Batch, Failure, Reader};
use crate::runtime::blocking_pool;

/// How many batches may wait.
pub(super) const AHEAD: usize = 4;

/// With how many left the next job begins.
const LOW: usize = 1;

#[derive(Debug, Default)]
struct State {
    /// Here between two jobs; gone at the end.
    reader: Option<Reader>,
    /// A job has the reader.
    is_busy: bool,
    ready: VecDeque<Batch>,
    /// What comes after those.
    outcome: Option<Outcome>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    /// The pull that waits for a batch.
    pull: Option<Waker>,
    /// Who waits for the job to end.
    closers: Vec<Waker>,
    spent: Vec<Waker>,
    is_closed: bool,
}

#[derive(Debug)]
enum Outcome {
    End,
    Failed(Failure),
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Pipe {
    stop: Arc<Stop>,
    /// Nothing of Python runs under it, and no file is read.
    state: Mutex<State>,
}

/// What taking from a pipe came to.
#[derive(Debug)]
pub(super) enum Taken {
    Batch(Batch),
    Failed(Failure),
    End,
    /// Not yet.
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

    /// Takes the next batch, for the buffer of the last one; and the job to be started, if it is
    /// time for one.
    pub(super) fn take(self: &Arc<Self>, used: Vec<u8>) -> (Taken, Option<Job>) {
        let mut state = self.lock();
        // One that a long line has made longer is not kept.
        if (BATCH / 2..=BATCH * 2).contains(&used.len()) && state.spare.len() < AHEAD {
            state.spare.push(used);
        }
        let taken = if let Some(batch) = state.ready.pop_front() {
            Taken::Batch(batch)
        } else {
            match &state.outcome {
                None => Taken::Empty,
                Some(Outcome::End) => Taken::End,
                Some(Outcome::Failed(_)) => match state.outcome.replace(Outcome::End) {
                    Some(Outcome::Failed(failure)) => Taken::Failed(failure),
                    _ => Taken::End,
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

    /// Wakes `waker` when there is something to take; `false` if there is something already.
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

    /// Ends it: see the top of this file. On an attached thread.
    pub(super) fn close(&self) {
        self.stop.ask();
        let mut state = self.lock();
        state.is_closed = true;
        let gone = (
            state.reader.take(),
            std::mem::take(&mut state.ready),
            std::mem::take(&mut state.spare),
            state.pull.take(),
            std::mem::take(&mut state.spent),
        );
        state.outcome = Some(Outcome::End);
        drop(state);
        drop(gone);
    }

    /// Whether a job has the file.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().is_busy
    }

    /// Wakes `waker` when no job has the file any more; `false` if none has it now.
    pub(super) fn wait_for_job(&self, waker: Waker) -> bool {
        let mut state = self.lock();
        let is_busy = state.is_busy;
        if is_busy {
            state.closers.push(waker);
        }
        is_busy
    }

    /// Wakes those who wait, on the thread of a job.
    fn wake(&self, wakers: Vec<Waker>) {
        blocking_pool::wake(wakers, |spent| {
            let mut state = self.lock();
            if state.is_closed {
                // The closer that was woken takes nothing back.
                return Some(spent);
            }
            state.spent.extend(spent);
            None
        });
    }
}

/// Reads until enough batches wait.
#[derive(Debug)]
pub(super) struct Job {
    pipe: Arc<Pipe>,
    /// `None` once it is put back or dropped.
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

    /// A buffer for the next batch; `None` if no more is wanted now, and the reader is put back.
    fn next_buffer(&mut self) -> Option<Vec<u8>> {
        let mut state = self.pipe.lock();
        if state.is_closed {
            return None;
        }
        if state.ready.len() < AHEAD {
            return Some(state.spare.pop().unwrap_or_default());
        }
        state.reader = self.reader.take();
        state.is_busy = false;
        None
    }

    /// Closes the file, and then says so.
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
        // Closed, panicked, or never run, if the reader is still here.
        if self.reader.is_some() {
            self.finish(Outcome::Failed(Failure::Died));
        }
    }
}
