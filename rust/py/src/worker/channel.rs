//! `FrameChannel`: frames through a socket. Each end of a connection has one: driver and worker process, driver and Ray host.
//!
//! The socket never blocks. The driver is called when it is ready (`loop.add_reader`), and a worker waits for it without the GIL.
//! A frame is written at once as far as the socket takes it. The rest stays here: the driver is called again when there is space
//! (`flush`), and a worker waits.
//!
//! Frames of several threads never mix: each is queued as a whole before any of it is written.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use headrace_core::worker::frame::{MAX_PARTS, write_head};
use headrace_core::worker::{Decoder, Frame};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyTuple};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::object::gil_cell::GilCell;

/// Parts of at most so many bytes are copied behind the head of their frame, and written with it.
const COPIED: usize = 1 << 14;

/// The bytes that one call reads at most before it returns frames.
const READ_BUDGET: usize = 1 << 20;

/// The size of the buffer for small reads, and of a chunk up to which small frames are joined.
const SCRATCH: usize = 1 << 16;

/// Bytes that were not written yet.
enum Chunk {
    Owned(Vec<u8>),
    Shared(PyBuffer<u8>),
}

impl Chunk {
    fn bytes(&self, _py: Python<'_>) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            // SAFETY: the buffer is contiguous (checked in `chunks`) and its memory is exported as long as it is held. Python code
            // that could change the bytes does not run during the borrow, since that holds the GIL and calls no Python code.
            Self::Shared(buffer) => unsafe {
                std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes())
            },
        }
    }
}

struct State {
    /// `None` after the close.
    socket: Option<OwnedFd>,
    decoder: Decoder,
    /// Whether no more bytes are read: the other side has closed its end and all its bytes were read, or the channel was closed.
    is_at_end: bool,
    scratch: Box<[u8]>,
    outgoing: VecDeque<Chunk>,
    /// The bytes of the first outgoing chunk that were written.
    written: usize,
}

/// Frames through a socket.
#[pyclass(name = "FrameChannel", frozen, module = "headrace._core")]
pub(super) struct PyFrameChannel {
    state: GilCell<State>,
}

impl std::fmt::Debug for PyFrameChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PyFrameChannel").finish_non_exhaustive()
    }
}

#[pymethods]
impl PyFrameChannel {
    /// Take the descriptor of a connected socket; the channel closes it.
    #[new]
    fn new(fd: RawFd) -> PyResult<Self> {
        if fd < 0 {
            return Err(PyValueError::new_err(format!(
                "fd must be a socket, not {fd}"
            )));
        }
        // SAFETY: the caller hands over the ownership of the descriptor (`socket.detach()`).
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            state: GilCell::new(State {
                socket: Some(socket),
                decoder: Decoder::default(),
                is_at_end: false,
                scratch: vec![0; SCRATCH].into_boxed_slice(),
                outgoing: VecDeque::new(),
                written: 0,
            }),
        })
    }

    /// Return the descriptor, or -1 after the close.
    fn fileno(&self, py: Python<'_>) -> RawFd {
        (self.state.borrow(py).socket.as_ref()).map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Write a frame. Return whether all bytes are written; otherwise `flush` writes the rest.
    ///
    /// With `wait` it returns when all are written, and waits without the GIL.
    #[pyo3(signature = (kind, position, parts, *, wait = false))]
    fn send(
        &self,
        py: Python<'_>,
        kind: u8,
        position: u64,
        parts: &Bound<'_, PyTuple>,
        wait: bool,
    ) -> PyResult<bool> {
        let chunks = chunks(kind, position, parts)?;
        self.state.borrow(py).outgoing.extend(chunks);
        while !self.flush(py)? {
            if !wait {
                return Ok(false);
            }
            self.wait(py, PollFlags::OUT)?;
        }
        Ok(true)
    }

    /// Queue a frame, which `flush` or the next `send` writes. Small frames are written together.
    fn queue(
        &self,
        py: Python<'_>,
        kind: u8,
        position: u64,
        parts: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        let chunks = chunks(kind, position, parts)?;
        let mut state = self.state.borrow(py);
        for chunk in chunks {
            state.append(chunk);
        }
        Ok(())
    }

    /// Write queued bytes. Return whether all are written.
    fn flush(&self, py: Python<'_>) -> PyResult<bool> {
        // Dropped after the borrow: the release of a buffer may call Python.
        let mut finished = Vec::new();
        let result = self.state.borrow(py).flush(py, &mut finished);
        drop(finished);
        Ok(result?)
    }

    /// Return the frames that have arrived, or None at the end of the stream.
    ///
    /// With `wait` it waits for at least one, without the GIL.
    #[pyo3(signature = (*, wait = false))]
    fn receive<'py>(&self, py: Python<'py>, wait: bool) -> PyResult<Option<Bound<'py, PyList>>> {
        loop {
            let (frames, is_at_end) = {
                let mut state = self.state.borrow(py);
                state.read()?;
                let frames: Vec<Frame> = std::iter::from_fn(|| state.decoder.take()).collect();
                (frames, state.is_at_end)
            };
            if !frames.is_empty() {
                let list = PyList::empty(py);
                for frame in frames {
                    list.append(to_tuple(py, &frame)?)?;
                }
                return Ok(Some(list));
            }
            if is_at_end {
                return Ok(None);
            }
            if !wait {
                return Ok(Some(PyList::empty(py)));
            }
            self.wait(py, PollFlags::IN)?;
        }
    }

    /// Close the socket. Bytes that were not written or read are lost. Idempotent.
    fn close(&self, py: Python<'_>) {
        let (socket, outgoing) = {
            let mut state = self.state.borrow(py);
            state.is_at_end = true;
            state.written = 0;
            (state.socket.take(), std::mem::take(&mut state.outgoing))
        };
        drop((socket, outgoing));
    }
}

impl PyFrameChannel {
    /// Wait until the socket is ready, without the GIL. Signal handlers of Python run meanwhile.
    fn wait(&self, py: Python<'_>, events: PollFlags) -> PyResult<()> {
        // A second descriptor, so that a close by another thread does not free the number while it is waited for.
        let socket = match &self.state.borrow(py).socket {
            Some(socket) => socket.try_clone()?,
            None => return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        };
        loop {
            let polled = py.detach(|| poll(&mut [PollFd::new(&socket, events)], None).map(drop));
            match polled {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => py.check_signals()?,
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

impl State {
    /// Append bytes behind those that are queued, in one chunk if both are small.
    fn append(&mut self, chunk: Chunk) {
        match (self.outgoing.back_mut(), chunk) {
            (Some(Chunk::Owned(last)), Chunk::Owned(bytes))
                if last.len() + bytes.len() <= SCRATCH =>
            {
                last.extend_from_slice(&bytes);
            }
            (_, chunk) => self.outgoing.push_back(chunk),
        }
    }

    fn flush(&mut self, py: Python<'_>, finished: &mut Vec<Chunk>) -> io::Result<bool> {
        while let Some(chunk) = self.outgoing.front() {
            let Some(socket) = &self.socket else {
                finished.extend(self.outgoing.drain(..));
                self.written = 0;
                return Err(io::ErrorKind::BrokenPipe.into());
            };
            let rest = &chunk.bytes(py)[self.written..];
            if !rest.is_empty() {
                match send(socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(count) => self.written += count,
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
                if self.written < chunk.bytes(py).len() {
                    continue;
                }
            }
            self.written = 0;
            finished.extend(self.outgoing.pop_front());
        }
        Ok(true)
    }

    /// Read what has arrived, within the budget.
    fn read(&mut self) -> io::Result<()> {
        let mut budget = READ_BUDGET;
        // A frame that is not whole is read on: without a frame, there is nothing more to read.
        while !self.is_at_end && (budget > 0 || !self.decoder.has_frame()) {
            let Some(socket) = &self.socket else {
                return Ok(());
            };
            let count = if let Some((part, missing)) = self.decoder.large_part() {
                let space = &mut part.spare_capacity_mut()[..missing];
                let received = match recv(socket.as_fd(), space, RecvFlags::DONTWAIT) {
                    Ok(((read, _), _)) => read.len(),
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::CONNRESET) => 0,
                    Err(error) => return Err(error.into()),
                };
                // SAFETY: `recv` has written so many bytes behind the length, within the capacity.
                unsafe { part.set_len(part.len() + received) };
                self.decoder.filled().map_err(io::Error::other)?;
                received
            } else {
                let received = match recv(socket.as_fd(), &mut *self.scratch, RecvFlags::DONTWAIT) {
                    Ok((count, _)) => count,
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::CONNRESET) => 0,
                    Err(error) => return Err(error.into()),
                };
                (self.decoder.feed(&self.scratch[..received])).map_err(io::Error::other)?;
                if (1..SCRATCH).contains(&received) && self.decoder.has_frame() {
                    // There was no more, so that another call would return nothing but cost as much.
                    return Ok(());
                }
                received
            };
            self.is_at_end = count == 0;
            budget = budget.saturating_sub(count);
        }
        Ok(())
    }
}

/// Return the bytes of a frame.
fn chunks(kind: u8, position: u64, parts: &Bound<'_, PyTuple>) -> PyResult<Vec<Chunk>> {
    if parts.len() > MAX_PARTS {
        return Err(PyValueError::new_err(format!(
            "a frame may have at most {MAX_PARTS} parts, and this one has {}",
            parts.len()
        )));
    }
    let mut buffers = Vec::with_capacity(parts.len());
    for part in parts {
        let buffer = PyBuffer::<u8>::get(&part)?;
        if !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err(
                "a part of a frame must be contiguous",
            ));
        }
        buffers.push(buffer);
    }
    let mut head = Vec::new();
    let lengths = buffers.iter().map(|buffer| buffer.len_bytes());
    write_head(&mut head, kind, position, lengths);
    let mut chunks = vec![];
    for buffer in buffers {
        if buffer.len_bytes() <= COPIED {
            let start = head.len();
            head.resize(start + buffer.len_bytes(), 0);
            buffer.copy_to_slice(parts.py(), &mut head[start..])?;
        } else {
            chunks.push(Chunk::Owned(std::mem::take(&mut head)));
            chunks.push(Chunk::Shared(buffer));
        }
    }
    chunks.push(Chunk::Owned(head));
    Ok(chunks)
}

/// Return a frame as `(kind, position, parts)`. The first part is bytes; the others are bytearrays, which may be written to.
fn to_tuple<'py>(py: Python<'py>, frame: &Frame) -> PyResult<Bound<'py, PyTuple>> {
    let mut parts: Vec<Bound<'py, PyAny>> = Vec::with_capacity(frame.parts.len());
    for part in &frame.parts {
        parts.push(if parts.is_empty() {
            PyBytes::new(py, part).into_any()
        } else {
            PyByteArray::new(py, part).into_any()
        });
    }
    (frame.kind, frame.position, PyTuple::new(py, parts)?).into_pyobject(py)
}
