//! The lines of a text file.
//!
//! | file | contents |
//! |---|---|
//! | [`input`] | the bytes of a file, plain or gzipped |
//! | [`reader`] | batches of whole lines |
//! | [`pipe`] | batches on their way from the reading threads to the event loop |
//! | [`codec`] | decoding of lines |
//! | [`closing`] | the awaitable of `close()` |
//!
//! Other threads read the bytes, decompress them, split them and check whether they are ASCII or UTF-8, without Python. The event
//! loop's thread takes whole batches. For each line it only finds the line end and copies the bytes into a string.

mod closing;
mod codec;
mod input;
mod pipe;
mod reader;

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyEOFError;
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

/// Takes lines out of a file, which is opened at the first pull.
#[pyclass(frozen, name = "LinesSource", module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyLinesSource {
    process: ProcessId,
    path: PathBuf,
    codec: Codec,
    state: GilCell<State>,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// The offset of the next line in the batch.
    at: usize,
    /// The number of lines taken.
    count: u64,
    /// `None` before the first line.
    pipe: Option<Arc<Pipe>>,
    is_ended: bool,
    /// Pipes from before the last restart or close, whose jobs may still have the file open.
    closing: Vec<Arc<Pipe>>,
}

impl State {
    /// Return the next line in the batch.
    #[inline]
    fn line(&self) -> Option<&[u8]> {
        let rest = &self.batch.bytes[self.at..self.batch.end];
        if rest.is_empty() {
            return None;
        }
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |index| index + 1);
        Some(&rest[..length])
    }

    #[inline]
    fn advance(&mut self, length: usize) {
        self.at += length;
        self.count += 1;
    }

    /// Discard the current batch and the pipe. Returns the buffer, for the caller to drop.
    fn discard(&mut self) -> Vec<u8> {
        self.at = 0;
        self.closing.retain(|pipe| pipe.is_busy());
        if let Some(pipe) = self.pipe.take() {
            self.closing.push(pipe);
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
            process: ProcessId::current(),
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
        // Without memory the line stays; `poll_next` returns the error.
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
                // The error handler ignored every byte of the last line, which is then not a line.
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
                    return Err(self.to_python_error(py, failure));
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

    /// Take the next line as a copy, with its number. Decoding it may run Python code.
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
            let note = format!("line {number} of {}", self.path.display());
            // An exception that accepts no note is raised without it.
            let _ = errors::note(py, error, &note);
        })
    }

    /// Return the pipe and the buffer of the exhausted batch; `None` after the end.
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

    /// Convert a failure to a Python exception.
    #[cold]
    fn to_python_error(&self, py: Python<'_>, failure: Failure) -> PyErr {
        let path = self.path.display();
        match failure {
            Failure::System(error) => errors::os_error(py, &self.path, &error),
            Failure::Truncated => PyEOFError::new_err(format!(
                "{path}: the gzip file ended before its end-of-stream marker"
            )),
            Failure::Corrupt(error) => py
                .import("gzip")
                .and_then(|gzip| gzip.getattr("BadGzipFile"))
                .and_then(|class| class.call1((format!("{path}: {error}"),)))
                .map_or_else(|error| error, PyErr::from_value),
            Failure::Died => errors::broken(py, "file reader"),
        }
    }

    pub(crate) fn restart(&self, py: Python<'_>) {
        self.end(py);
        let mut state = self.state.borrow(py);
        state.is_ended = false;
        state.count = 0;
    }

    /// End the source. Returns an awaitable for the read in progress, if there is one.
    pub(crate) fn close<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.end(py);
        let busy: Vec<_> = self
            .state
            .borrow(py)
            .closing
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
        let (closing, bytes) = {
            let mut state = self.state.borrow(py);
            state.is_ended = true;
            let bytes = state.discard();
            (state.closing.clone(), bytes)
        };
        for pipe in &closing {
            pipe.close();
        }
        drop((closing, bytes));
    }
}

impl Drop for PyLinesSource {
    fn drop(&mut self) {
        // Cheap: the link that owns this is dropped on an attached thread.
        Python::attach(|py| {
            if self.process.is_current() {
                self.end(py);
            } else {
                // In a forked child the reading thread, which may have held the lock, does not exist.
                std::mem::forget(self.state.take(py));
            }
        });
    }
}
