//! `Sync`: waits until the bytes of a journal are on disk. `file.rs` makes it, and `blocking_pool` runs the system call.
//!
//! One job runs at a time. It waits a moment, so that a burst of ends shares it, then syncs all that was written before.
//!
//! As in `line_writer.rs`, a job wakes the wakers and does not drop them.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pyo3::prelude::*;

use crate::coroutine::operation::Operation;
use crate::coroutine::own_class;
use crate::errors;
use crate::object::gc::traverse;
use crate::runtime::blocking_pool;

/// The time that a job waits for more ends.
const LINGER: Duration = Duration::from_millis(1);

/// The syncs of a file.
#[derive(Debug)]
pub(super) struct Syncer {
    path: PathBuf,
    file: File,
    /// No Python code runs under this lock.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The bytes that were written.
    written: u64,
    /// The bytes that are on disk.
    reached: u64,
    is_busy: bool,
    /// The error of a sync that has failed. The bytes that it did not put on disk may be lost, and a later sync would not report that.
    failure: Option<io::Error>,
    wakers: Vec<Waker>,
    /// Used wakers, to be dropped on an attached thread.
    spent: Vec<Waker>,
    /// Whether no call will drop the used wakers.
    is_abandoned: bool,
}

impl Syncer {
    pub(super) fn new(path: PathBuf, file: File) -> Arc<Self> {
        Arc::new(Self {
            path,
            file,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Note that this number of bytes was written.
    pub(super) fn note_written(&self, length: u64) {
        self.lock().written = length;
    }

    /// Note that this number of bytes is on disk.
    pub(super) fn note_reached(&self, length: u64) {
        self.lock().reached = length;
    }

    /// The number of bytes on disk.
    pub(super) fn reached(&self) -> u64 {
        self.lock().reached
    }

    /// Put all that was written on disk, on this thread.
    pub(super) fn sync_now(&self) -> io::Result<()> {
        let length = self.lock().written;
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let synced = self.file.sync_data();
        let mut state = self.lock();
        match synced {
            Ok(()) => {
                state.reached = state.reached.max(length);
                Ok(())
            }
            Err(error) => {
                state.failure.get_or_insert_with(|| same_error(&error));
                Err(error)
            }
        }
    }

    /// Return the error of a sync that has failed: there is none after it.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.lock().failure.as_ref().map(same_error)
    }

    /// Drop the used wakers, on an attached thread, and those of the next wake-ups on their own.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.is_abandoned = true;
        let spent = (
            std::mem::take(&mut state.spent),
            std::mem::take(&mut state.wakers),
        );
        drop(state);
        drop(spent);
    }

    fn run(&self) {
        std::thread::sleep(LINGER);
        // A waiter finds the error in the state.
        let _ = self.sync_now();
        let mut state = self.lock();
        state.is_busy = false;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        blocking_pool::wake(wakers, |spent| {
            let mut state = self.lock();
            if state.is_abandoned {
                return Some(spent);
            }
            state.spent.extend(spent);
            None
        });
    }
}

/// Return another error of the same kind.
fn same_error(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// One wait until a length is on disk.
#[derive(Debug)]
pub(super) struct Sync {
    pub(super) syncer: Arc<Syncer>,
    pub(super) length: u64,
}

impl Operation for Sync {
    const NAME: &'static CStr = c"headrace._core.JournalSync";

    own_class!();

    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>> {
        let mut state = self.syncer.lock();
        let spent = std::mem::take(&mut state.spent);
        let failure = state.failure.as_ref().map(same_error);
        let is_reached = state.reached >= self.length;
        let mut starts = false;
        if !is_reached && failure.is_none() && !context.waker().will_wake(Waker::noop()) {
            state.wakers.push(context.waker().clone());
            starts = !std::mem::replace(&mut state.is_busy, true);
        }
        drop(state);
        drop(spent);
        if is_reached {
            return Poll::Ready(Ok(py.None().into_bound(py)));
        }
        if let Some(error) = failure {
            let path = &self.syncer.path;
            return Poll::Ready(Err(errors::os_error(py, path, &error)));
        }
        if starts {
            let syncer = Arc::clone(&self.syncer);
            if let Err(error) = blocking_pool::spawn(py, move || syncer.run()) {
                self.syncer.lock().is_busy = false;
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    }
}

traverse!(Sync {});
