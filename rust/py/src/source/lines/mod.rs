//! The lines of a text file.
//!
//! | file | what it holds |
//! |---|---|
//! | [`input`] | the bytes of a file, plain or gzipped |
//! | [`reader`] | batches of whole lines |
//! | [`pipe`] | the way of the batches from the reading threads to the loop |
//! | [`codec`] | from the bytes of a line to text |
//! | [`closing`] | what is awaited to close |
//!
//! Bytes are read, gunzipped, split and checked for being ASCII or UTF-8 by other threads, which
//! need no Python for that. A batch crosses over as a whole; what is left to do for a line is to
//! find its end and to copy it into a string.

mod closing;
mod codec;
mod input;
mod pipe;
mod reader;

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::{PyEOFError, PyOSError};
use pyo3::prelude::*;

use crate::coroutine::Parked;
use crate::errors;
use crate::object::gil_cell::GilCell;
use crate::runtime::blocking_pool;
use crate::runtime::fork_guard::ProcessId;
use crate::source::{SourcePoll, Wait};
use closing::Closing;
use codec::Codec;
use pipe::{Pipe, Taken};
use reader::{Batch, Failure, Reader, Script};

pub(crate) use closing::register_closing;

/// Takes lines out of a file that is opened when the first one is wanted.
#[pyclass(frozen, name = "LinesSource", module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyLinesSource {
    home: ProcessId,
    path: PathBuf,
    codec: Codec,
    state: GilCell<State>,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// Where in the batch the next line begins.
    at: usize,
    /// How many lines were taken.
    count: u64,
    /// `None` before the first line.
    pipe: Option<Arc<Pipe>>,
    is_ended: bool,
    /// Pipes of earlier cycles, some of whose jobs may still have their file.
    left: Vec<Arc<Pipe>>,
}

impl State {
    /// The next line in the batch.
    #[inline]
    fn line(&self) -> Option<&[u8]> {
        let rest = &self.batch.bytes[self.at..self.batch.end];
        if rest.is_empty() {
            return None;
        }
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |place| place + 1);
        Some(&rest[..length])
    }

    #[inline]
    fn advance(&mut self, length: usize) {
        self.at += length;
        self.count += 1;
    }

    /// Gives up what was read, and the file. What is to be dropped comes back.
    fn leave(&mut self) -> Vec<u8> {
        self.at = 0;
        self.left.retain(|pipe| pipe.is_busy());
        if let Some(pipe) = self.pipe.take() {
            self.left.push(pipe);
        }
        std::mem::take(&mut self.batch).bytes
    }
}

#[pymethods]
impl PyLinesSource {
    #[new]
    fn new(
        path: PathBuf,
        encoding: &Bound<'_, PyAny>,
        errors: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        Ok(Self {
            home: ProcessId::current(),
            path: blocking_pool::checked_path(path)?,
            codec: Codec::new(encoding, errors)?,
            state: GilCell::default(),
        })
    }
}

impl PyLinesSource {
    #[inline(never)]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let mut state = self.state.borrow(py);
        let line = state.line()?;
        // The borrow may stay open: making these strings runs no Python code.
        let text = match state.batch.script {
            Script::Ascii => codec::ascii(py, line),
            Script::Utf8 => codec::utf8(py, line),
            Script::Coded => return None,
        };
        let length = line.len();
        // For want of memory the line stays, and `poll_next` says why.
        let text = text.ok()?;
        state.advance(length);
        Some(text)
    }

    pub(crate) fn poll_next<'py>(&self, py: Python<'py>) -> PyResult<SourcePoll<'py>> {
        loop {
            if let Some(item) = self.ready(py) {
                return Ok(SourcePoll::Item(item));
            }
            if let Some((line, number)) = self.take_line(py) {
                let text = self.decode(py, line, number)?;
                // All of the last line was ignored: it is none.
                if text.is_truthy()? {
                    return Ok(SourcePoll::Item(text));
                }
                continue;
            }
            let Some((pipe, used)) = self.pipe(py) else {
                return Ok(SourcePoll::End);
            };
            let (taken, job) = pipe.take(used);
            if let Some(job) = job {
                blocking_pool::spawn(py, move || job.run())?;
            }
            match taken {
                Taken::Batch(batch) => {
                    let mut state = self.state.borrow(py);
                    state.batch = batch;
                    state.at = 0;
                }
                Taken::Failed(failure) => {
                    self.state.borrow(py).is_ended = true;
                    return Err(self.blame(py, failure));
                }
                Taken::End => {
                    self.state.borrow(py).is_ended = true;
                    return Ok(SourcePoll::End);
                }
                Taken::Empty => {
                    let parked = Parked::new(py)?;
                    if pipe.wait(parked.waker()) {
                        let future = parked.hand_up(py)?;
                        return Ok(SourcePoll::Wait(Box::new(Wait::Batch(parked)), future));
                    }
                }
            }
        }
    }

    /// The next line and its number, copied: decoding it may run Python code.
    fn take_line(&self, py: Python<'_>) -> Option<(Vec<u8>, u64)> {
        let mut state = self.state.borrow(py);
        let line = state.line()?.to_vec();
        state.advance(line.len());
        Some((line, state.count))
    }

    fn decode<'py>(
        &self,
        py: Python<'py>,
        line: Vec<u8>,
        number: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.codec.decode(py, line).inspect_err(|error| {
            let place = format!("line {number} of {}", self.path.display());
            // An exception that takes no note still has to arrive.
            let _ = errors::note(py, error, &place);
        })
    }

    /// The pipe, and the buffer of the batch that is used up; `None` after the end.
    fn pipe(&self, py: Python<'_>) -> Option<(Arc<Pipe>, Vec<u8>)> {
        let mut state = self.state.borrow(py);
        if state.is_ended {
            return None;
        }
        let pipe = state.pipe.get_or_insert_with(|| {
            Pipe::new(|stop| Reader::new(self.path.clone(), self.codec.charset, stop))
        });
        let pipe = Arc::clone(pipe);
        state.at = 0;
        Some((pipe, std::mem::take(&mut state.batch).bytes))
    }

    pub(crate) fn resume<'py>(&self, py: Python<'py>, parked: Parked) -> PyResult<SourcePoll<'py>> {
        drop(parked);
        self.poll_next(py)
    }

    /// What a failure is to Python.
    #[cold]
    fn blame(&self, py: Python<'_>, failure: Failure) -> PyErr {
        let path = self.path.display();
        let made = match failure {
            Failure::System(error) => match error.raw_os_error() {
                Some(number) => self.system_error(py, number),
                None => return PyOSError::new_err(format!("{path}: {error}")),
            },
            Failure::Truncated => {
                return PyEOFError::new_err(format!(
                    "{path}: the gzip file ended before its end-of-stream marker"
                ));
            }
            Failure::Corrupt(error) => py
                .import("gzip")
                .and_then(|gzip| gzip.getattr("BadGzipFile"))
                .and_then(|class| class.call1((format!("{path}: {error}"),))),
            Failure::Died => return errors::broken(py, "file reader"),
        };
        made.map_or_else(|error| error, PyErr::from_value)
    }

    /// `OSError`, of the kind that the number says, with the name of the file.
    fn system_error<'py>(&self, py: Python<'py>, number: i32) -> PyResult<Bound<'py, PyAny>> {
        let text = py.import("os")?.call_method1("strerror", (number,))?;
        py.get_type::<PyOSError>()
            .call1((number, text, self.path.as_os_str()))
    }

    pub(crate) fn restart(&self, py: Python<'_>) {
        self.end(py);
        let mut state = self.state.borrow(py);
        state.is_ended = false;
        state.count = 0;
    }

    /// Ends it. What comes back is to be awaited: the read that is under way.
    pub(crate) fn close<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.end(py);
        let busy: Vec<_> = self
            .state
            .borrow(py)
            .left
            .iter()
            .filter(|pipe| pipe.is_busy())
            .cloned()
            .collect();
        if busy.is_empty() {
            return Ok(None);
        }
        Closing::make(py, busy).map(Some)
    }

    fn end(&self, py: Python<'_>) {
        let (left, bytes) = {
            let mut state = self.state.borrow(py);
            state.is_ended = true;
            let bytes = state.leave();
            (state.left.clone(), bytes)
        };
        for pipe in &left {
            pipe.close();
        }
        drop((left, bytes));
    }
}

impl Drop for PyLinesSource {
    fn drop(&mut self) {
        // Dropped with its link, on an attached thread: this costs a counter.
        Python::attach(|py| {
            if self.home.is_current() {
                self.end(py);
            } else {
                // In a forked child: the reading thread, which may have held the lock, is not here.
                std::mem::forget(std::mem::take(&mut *self.state.borrow(py)));
            }
        });
    }
}
