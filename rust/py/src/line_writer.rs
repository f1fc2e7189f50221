//! Lines on their way into a file.
//!
//! Lines are gathered here and written by [`Job`]s on another thread, one at a time. A job writes what
//! is there, again and again, until nothing is; then it ends, and the next line starts another. So a
//! slow disk makes batches, and a quick one does not wait for any.
//!
//! What is written is always a whole number of lines, in their order, straight to the operating system:
//! whatever kills the process, only the last line that is in the file may be cut.
//!
//! # Wakers
//!
//! A waker holds a loop's mailbox, and so a reference to Python. A job wakes it but does not drop it:
//! that is done here, on an attached thread, the next time anybody calls.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::coroutine::operation::{Operation, Ready};
use crate::coroutine::{Class, Native};
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::runtime::blocking_pool;
use crate::runtime::fork_guard::ProcessId;

/// A buffer that has become longer than this is not kept.
const SPARE: usize = 1 << 20;

#[derive(Debug, Default)]
struct State {
    /// Lines that no job has taken.
    lines: Vec<u8>,
    /// How many bytes a job is writing.
    under_way: usize,
    /// Here between two jobs, once it is open.
    file: Option<File>,
    is_busy: bool,
    stage: Stage,
    /// Why it was closed, if nobody has been told.
    failure: Option<io::Error>,
    /// Those who wait for room or for the end.
    wakers: Vec<Waker>,
    spent: Vec<Waker>,
    /// Nobody is left who could take what is spent.
    is_abandoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Open,
    /// The file is to be closed when everything is written.
    Closing,
    /// It is closed, and nothing is written any more.
    Closed,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    appends: bool,
    /// Nothing of Python runs under it, and nothing is written.
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

    /// Wakes all who wait, on the thread of a job.
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

/// Writes until nothing is left to be written.
struct Job {
    shared: Arc<Shared>,
    file: Option<File>,
    is_through: bool,
}

impl Job {
    fn run(mut self) {
        self.work();
    }

    fn work(&mut self) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.shared.lock();
            let done = std::mem::take(&mut state.under_way) > 0;
            let wakers = if done {
                std::mem::take(&mut state.wakers)
            } else {
                Vec::new()
            };
            batch.clear();
            if batch.capacity() > SPARE {
                batch = Vec::new();
            }
            std::mem::swap(&mut batch, &mut state.lines);
            state.under_way = batch.len();
            if batch.is_empty() && self.file.is_some() {
                if state.stage == Stage::Open {
                    state.file = self.file.take();
                    state.is_busy = false;
                    self.is_through = true;
                }
                drop(state);
                self.shared.wake(wakers);
                if !self.is_through {
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
            place => place.insert(self.shared.open()?).write_all(batch),
        }
    }

    /// Closes the file, and then says so.
    fn end(&mut self, failure: Option<io::Error>) {
        self.is_through = true;
        drop(self.file.take());
        let mut state = self.shared.lock();
        state.is_busy = false;
        state.stage = Stage::Closed;
        state.failure = failure;
        state.under_way = 0;
        let lost = std::mem::take(&mut state.lines);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        drop(lost);
        self.shared.wake(wakers);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.is_through {
            return;
        }
        if std::thread::panicking() {
            self.end(Some(io::Error::other("the thread that writes it died")));
        } else {
            // The process ends before a thread was there for it.
            self.work();
        }
    }
}

/// What a file is written by, line by line.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct LineWriter {
    home: ProcessId,
    /// Gone in a forked child only.
    shared: GilCell<Option<Arc<Shared>>>,
}

#[pymethods]
impl LineWriter {
    #[new]
    fn new(path: PathBuf, appends: bool) -> PyResult<Self> {
        let path = blocking_pool::checked_path(path)?;
        Ok(Self {
            home: ProcessId::current(),
            shared: GilCell::new(Some(Arc::new(Shared {
                path,
                appends,
                state: Mutex::default(),
            }))),
        })
    }

    /// Takes a line with its end, unless more than `maxsize` bytes would wait then: `False`. `None`: it
    /// is closed, or has failed and said so.
    fn push(&self, py: Python<'_>, line: &[u8], maxsize: usize) -> PyResult<Option<bool>> {
        let shared = self.shared(py)?;
        let mut state = shared.lock();
        let spent = std::mem::take(&mut state.spent);
        let failure = state.failure.take();
        let is_over = state.stage != Stage::Open;
        let waiting = state.lines.len() + state.under_way;
        let has_room = waiting == 0 || waiting.saturating_add(line.len()) <= maxsize;
        let accepts = has_room && !is_over;
        if accepts {
            state.lines.extend_from_slice(line);
        }
        let job = accepts.then(|| job(&shared, &mut state)).flatten();
        drop(state);
        drop(spent);
        if let Some(error) = failure {
            return Err(blame(py, &shared.path, &error));
        }
        start(py, job)?;
        Ok((!is_over).then_some(accepts))
    }

    /// Waits until another line may be taken.
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

    /// Has the file closed when everything is written; one that was never opened is made if `makes`.
    /// What comes back waits for that.
    fn close<'py>(&self, py: Python<'py>, makes: bool) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared(py)?;
        self.finish(py, &shared, makes)?;
        let event = Event::Closed;
        Ready::make(py, Wait { shared, event })
    }
}

impl LineWriter {
    fn shared(&self, py: Python<'_>) -> PyResult<Arc<Shared>> {
        self.home.check(py, "file writer")?;
        let shared = self.shared.borrow(py).as_ref().map(Arc::clone);
        shared.ok_or_else(|| crate::errors::broken(py, "file writer"))
    }

    #[expect(clippy::unused_self, reason = "it is what is closed")]
    fn finish(&self, py: Python<'_>, shared: &Arc<Shared>, makes: bool) -> PyResult<()> {
        let mut state = shared.lock();
        let mut file = None;
        let mut next = None;
        if state.stage == Stage::Open {
            state.stage = Stage::Closing;
            if !state.is_busy {
                file = state.file.take();
                if file.is_none() && makes {
                    next = job(shared, &mut state);
                } else {
                    state.stage = Stage::Closed;
                }
            }
        }
        drop(state);
        drop(file);
        start(py, next)
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        Python::attach(|py| {
            let Some(shared) = self.shared.borrow(py).take() else {
                return;
            };
            if !self.home.is_current() {
                // In a forked child: the thread that writes, which may have held the lock, is not here.
                std::mem::forget(shared);
                return;
            }
            // Without `makes` it starts nothing, and so it cannot fail.
            let _ = self.finish(py, &shared, false);
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

/// The job to be started, if none is under way.
fn job(shared: &Arc<Shared>, state: &mut State) -> Option<Job> {
    if std::mem::replace(&mut state.is_busy, true) {
        return None;
    }
    Some(Job {
        shared: Arc::clone(shared),
        file: state.file.take(),
        is_through: false,
    })
}

fn start(py: Python<'_>, job: Option<Job>) -> PyResult<()> {
    job.map_or(Ok(()), |job| blocking_pool::spawn(py, move || job.run()))
}

/// `OSError`, of the kind that its number says, with the name of the file.
#[cold]
fn blame(py: Python<'_>, path: &Path, error: &io::Error) -> PyErr {
    let Some(number) = error.raw_os_error() else {
        return PyOSError::new_err(format!("{}: {error}", path.display()));
    };
    let made = py
        .import("os")
        .and_then(|os| os.call_method1("strerror", (number,)))
        .and_then(|text| {
            py.get_type::<PyOSError>()
                .call1((number, text, path.as_os_str()))
        });
    made.map_or_else(|error| error, PyErr::from_value)
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// There is room for so many bytes; or there never will be.
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

static CLASS: Class = Class::new();

impl Operation for Wait {
    const NAME: &'static CStr = c"headrace._core.LineWriterWait";

    fn class() -> &'static Class {
        &CLASS
    }

    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>> {
        let mut state = self.shared.lock();
        let spent = std::mem::take(&mut state.spent);
        let waiting = state.lines.len() + state.under_way;
        let (is_there, failure) = match self.event {
            Event::Room { size, maxsize } => (
                waiting == 0
                    || waiting.saturating_add(size) <= maxsize
                    || state.stage != Stage::Open,
                None,
            ),
            Event::Closed => (state.stage == Stage::Closed, state.failure.take()),
        };
        if !is_there && !context.waker().will_wake(Waker::noop()) {
            state.wakers.push(context.waker().clone());
        }
        drop(state);
        drop(spent);
        match failure {
            Some(error) => Poll::Ready(Err(blame(py, &self.shared.path, &error))),
            None if is_there => Poll::Ready(Ok(py.None().into_bound(py))),
            None => Poll::Pending,
        }
    }
}

traverse!(Wait {});

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LineWriter>()?;
    Native::<Ready<Wait>>::register(module.py())
}
