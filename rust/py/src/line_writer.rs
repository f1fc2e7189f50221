//! `LineWriter`: writes lines to a file on another thread. `headrace/push/writer.py` uses it.
//!
//! Lines are collected here. [`Job`]s write them on another thread, one job at a time. A job writes the collected lines until none
//! are left, and then ends; the next line starts another job. A slow disk therefore gets large batches, and a fast one does not
//! wait for them.
//!
//! Each write is a whole number of lines, in order, directly to the operating system. However the process is killed, only the last
//! line in the file may be truncated.
//!
//! # Wakers
//!
//! A waker holds the mailbox of an event loop, and so a reference to Python. A job wakes it but does not drop it: the next call
//! from Python drops it, on an attached thread.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pyo3::prelude::*;

use crate::coroutine::operation::{Operation, Ready};
use crate::coroutine::{Native, own_class};
use crate::errors;
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::runtime::blocking_pool;
use crate::runtime::fork_guard::ProcessId;

/// The largest capacity with which a buffer is kept for reuse.
const SPARE: usize = 1 << 20;

#[derive(Debug, Default)]
struct State {
    /// Lines that no job has taken yet.
    lines: Vec<u8>,
    /// The number of bytes that a job is writing.
    in_flight: usize,
    /// Present between two jobs, once it was opened.
    file: Option<File>,
    is_busy: bool,
    phase: Phase,
    /// The error that closed the file, until it was reported.
    failure: Option<io::Error>,
    /// The wakers of those that wait for room or for the end.
    wakers: Vec<Waker>,
    /// Used wakers, to be dropped on an attached thread.
    spent: Vec<Waker>,
    /// Whether the writer was dropped, so that no call will drop the used wakers.
    is_abandoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Open,
    /// The file will be closed when everything is written.
    Closing,
    /// The file is closed.
    Closed,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    appends: bool,
    /// No Python code runs and nothing is written under this lock.
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> io::Result<File> {
        let mut options = File::options();
        if self.appends {
            options.append(true);
        } else {
            options.write(true).truncate(true);
        }
        options.create(true).open(&self.path)
    }

    /// Wake the waiters, on the thread of a job.
    fn wake(&self, wakers: Vec<Waker>) {
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

/// Writes until no lines are left.
struct Job {
    shared: Arc<Shared>,
    file: Option<File>,
    is_finished: bool,
}

impl Job {
    fn run(mut self) {
        self.work();
    }

    fn work(&mut self) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.shared.lock();
            let wakers = match std::mem::take(&mut state.in_flight) {
                0 => Vec::new(),
                _ => std::mem::take(&mut state.wakers),
            };
            batch.clear();
            if batch.capacity() > SPARE {
                batch = Vec::new();
            }
            std::mem::swap(&mut batch, &mut state.lines);
            state.in_flight = batch.len();
            if batch.is_empty() && self.file.is_some() {
                if state.phase == Phase::Open {
                    state.file = self.file.take();
                    state.is_busy = false;
                    self.is_finished = true;
                }
                drop(state);
                self.shared.wake(wakers);
                if !self.is_finished {
                    self.end(None);
                }
                return;
            }
            drop(state);
            self.shared.wake(wakers);
            if let Err(error) = self.write(&batch) {
                self.end(Some(error));
                return;
            }
        }
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(batch),
            unopened => unopened.insert(self.shared.open()?).write_all(batch),
        }
    }

    /// Close the file, then record that and wake the waiters.
    fn end(&mut self, failure: Option<io::Error>) {
        self.is_finished = true;
        drop(self.file.take());
        let mut state = self.shared.lock();
        state.is_busy = false;
        state.phase = Phase::Closed;
        state.failure = failure;
        state.in_flight = 0;
        let lost = std::mem::take(&mut state.lines);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        drop(lost);
        self.shared.wake(wakers);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        if std::thread::panicking() {
            self.end(Some(io::Error::other("the thread that writes it died")));
        } else {
            // The process exits before a thread ran the job.
            self.work();
        }
    }
}

/// Writes a file line by line.
#[pyclass(frozen, name = "LineWriter", module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyLineWriter {
    process: ProcessId,
    /// `None` after a drop in a forked child only.
    shared: GilCell<Option<Arc<Shared>>>,
}

#[pymethods]
impl PyLineWriter {
    #[new]
    fn new(path: PathBuf, appends: bool) -> PyResult<Self> {
        let path = blocking_pool::checked_path(path)?;
        Ok(Self {
            process: ProcessId::current(),
            shared: GilCell::new(Some(Arc::new(Shared {
                path,
                appends,
                state: Mutex::default(),
            }))),
        })
    }

    /// Accept a line with its line end. Returns `False` if more than `maxsize` bytes would then wait, and `None` if the
    /// file is closed or a reported error closed it.
    fn push(&self, py: Python<'_>, line: &[u8], maxsize: usize) -> PyResult<Option<bool>> {
        let shared = self.shared(py)?;
        let mut state = shared.lock();
        let spent = std::mem::take(&mut state.spent);
        let failure = state.failure.take();
        let is_over = state.phase != Phase::Open;
        let waiting = state.lines.len() + state.in_flight;
        let has_room = waiting == 0 || waiting.saturating_add(line.len()) <= maxsize;
        let accepts = has_room && !is_over;
        if accepts {
            state.lines.extend_from_slice(line);
        }
        let job = accepts.then(|| job(&shared, &mut state)).flatten();
        drop(state);
        drop(spent);
        if let Some(error) = failure {
            return Err(errors::os_error(py, &shared.path, &error));
        }
        start(py, job)?;
        Ok((!is_over).then_some(accepts))
    }

    /// Wait until another line can be accepted.
    fn room<'py>(
        &self,
        py: Python<'py>,
        size: usize,
        maxsize: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared(py)?;
        let event = Event::Room { size, maxsize };
        Ready::make(py, Wait { shared, event })
    }

    /// Close the file when everything is written. If `creates`, creates a file that was never opened. Returns an
    /// awaitable that waits for the close.
    fn close<'py>(&self, py: Python<'py>, creates: bool) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared(py)?;
        Self::finish(py, &shared, creates)?;
        let event = Event::Closed;
        Ready::make(py, Wait { shared, event })
    }
}

impl PyLineWriter {
    fn shared(&self, py: Python<'_>) -> PyResult<Arc<Shared>> {
        self.process.check(py, "file writer")?;
        let shared = self.shared.borrow(py).as_ref().map(Arc::clone);
        shared.ok_or_else(|| errors::broken(py, "file writer"))
    }

    /// Close the file when everything is written; immediately if no job is running.
    fn finish(py: Python<'_>, shared: &Arc<Shared>, creates: bool) -> PyResult<()> {
        let mut state = shared.lock();
        let mut file = None;
        let mut next = None;
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
            if !state.is_busy {
                file = state.file.take();
                if file.is_none() && creates {
                    next = job(shared, &mut state);
                } else {
                    state.phase = Phase::Closed;
                }
            }
        }
        drop(state);
        drop(file);
        start(py, next)
    }
}

impl Drop for PyLineWriter {
    fn drop(&mut self) {
        Python::attach(|py| {
            let Some(shared) = self.shared.borrow(py).take() else {
                return;
            };
            if !self.process.is_current() {
                // In a forked child the writing thread, which may have held the lock, does not exist.
                std::mem::forget(shared);
                return;
            }
            // Without `creates` no job is started, so this cannot fail.
            let _ = Self::finish(py, &shared, false);
            let mut state = shared.lock();
            state.is_abandoned = true;
            let spent = (
                std::mem::take(&mut state.spent),
                std::mem::take(&mut state.wakers),
            );
            drop(state);
            drop(spent);
        });
    }
}

/// Make the job to start, if none is running.
fn job(shared: &Arc<Shared>, state: &mut State) -> Option<Job> {
    if std::mem::replace(&mut state.is_busy, true) {
        return None;
    }
    Some(Job {
        shared: Arc::clone(shared),
        file: state.file.take(),
        is_finished: false,
    })
}

fn start(py: Python<'_>, job: Option<Job>) -> PyResult<()> {
    job.map_or(Ok(()), |job| blocking_pool::spawn(py, move || job.run()))
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// There is room for `size` bytes, or the file is closed.
    Room {
        size: usize,
        maxsize: usize,
    },
    Closed,
}

/// One wait for an event.
#[derive(Debug)]
struct Wait {
    shared: Arc<Shared>,
    event: Event,
}

impl Operation for Wait {
    const NAME: &'static CStr = c"headrace._core.LineWriterWait";

    own_class!();

    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>> {
        let mut state = self.shared.lock();
        let spent = std::mem::take(&mut state.spent);
        let waiting = state.lines.len() + state.in_flight;
        let (has_occurred, failure) = match self.event {
            Event::Room { size, maxsize } => (
                waiting == 0
                    || waiting.saturating_add(size) <= maxsize
                    || state.phase != Phase::Open,
                None,
            ),
            Event::Closed => (state.phase == Phase::Closed, state.failure.take()),
        };
        if !has_occurred && !context.waker().will_wake(Waker::noop()) {
            state.wakers.push(context.waker().clone());
        }
        drop(state);
        drop(spent);
        match failure {
            Some(error) => Poll::Ready(Err(errors::os_error(py, &self.shared.path, &error))),
            None if has_occurred => Poll::Ready(Ok(py.None().into_bound(py))),
            None => Poll::Pending,
        }
    }
}

traverse!(Wait {});

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyLineWriter>()?;
    Native::<Ready<Wait>>::register(module.py())
}
