//! The next envelope, as the consumer awaits it.

use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use headrace_core::buffer::{Get, TryGetError};
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{PyTraverseError, PyVisit};

use super::envelope::Envelope;
use super::field::Field;
use crate::buffer::PyBuffer;
use crate::coroutine::{Class, Coroutine, Native, Pending, Step};
use crate::errors::{self, RaisedError};
use crate::object::gc::{self, traverse};
use crate::object::gil_cell::GilCell;
use crate::pull::control;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::this_thread;

/// The envelopes of a run that are not read yet, in a buffer, with what is to be done besides.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Unread {
    pub(super) buffer: Py<PyBuffer>,
    /// The only one that may ask for envelopes; known from the start of the run on.
    event_loop: OnceLock<Py<PyAny>>,
    /// In which step of a task, and in which thread, that was last seen to run.
    seen: GilCell<Option<(u64, u64)>>,
    /// Called with whatever is in the buffer and is no envelope, to raise what it stands for.
    other: Py<PyAny>,
    /// Called after an entry was taken while somebody waits for room; until the end, when nobody will any more.
    taken: GilCell<Option<Py<PyAny>>>,
    /// Whether somebody waits for room.
    pub(super) contested: AtomicBool,
    /// Whether what is put is dropped.
    pub(super) shut: AtomicBool,
}

#[pymethods]
impl Unread {
    #[new]
    fn new(buffer: Py<PyBuffer>, other: Py<PyAny>, taken: Py<PyAny>) -> Self {
        Self {
            buffer,
            event_loop: OnceLock::new(),
            seen: GilCell::new(None),
            other,
            taken: GilCell::new(Some(taken)),
            contested: AtomicBool::new(false),
            shut: AtomicBool::new(false),
        }
    }

    /// The run starts, on this loop.
    fn begin(&self, event_loop: Py<PyAny>) -> PyResult<()> {
        let begun = self.event_loop.set(event_loop);
        begun.map_err(|_| PyRuntimeError::new_err("this run has started already"))
    }

    /// The next envelope.
    fn take(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(slf.py(), || Take {
            unread: slf.unbind(),
            pending: None,
        })
    }

    /// Puts an entry behind the others.
    pub(super) fn put(&self, py: Python<'_>, entry: Bound<'_, PyAny>) -> PyResult<()> {
        if self.shut.load(Relaxed) {
            return Ok(());
        }
        let buffer = self.buffer.bind(py);
        match PyBuffer::offer(buffer, entry) {
            Ok(_) => Ok(()),
            Err(refused) => Err(refused.into_error(py, None)),
        }
    }

    #[getter]
    fn contested(&self) -> bool {
        self.contested.load(Relaxed)
    }

    #[setter]
    fn set_contested(&self, contested: bool) {
        self.contested.store(contested, Relaxed);
    }

    /// Nobody reads any more: what is put from now on is dropped.
    fn shut(&self) {
        self.shut.store(true, Relaxed);
    }

    /// As `shut`; what is there is dropped too, and whoever waits raises `ClosedError`.
    fn close(&self) {
        self.shut.store(true, Relaxed);
        let left = self.buffer.get().core().close();
        drop(left);
    }

    /// Nothing more will be put: what is there is read, and then the stream ends.
    fn finish(&self, py: Python<'_>) {
        self.buffer.get().core().finish();
        let taken = self.taken.borrow(py).take();
        drop(taken);
    }

    fn __len__(&self) -> usize {
        self.buffer.get().core().len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.buffer)?;
        visit.call(&self.other)?;
        if let Some(event_loop) = self.event_loop.get() {
            visit.call(event_loop)?;
        }
        gc::visit(&visit, |visit| {
            let taken = self.taken.peek_for_gc();
            taken
                .as_ref()
                .and_then(|taken| taken.as_ref())
                .map_or(Ok(()), visit)
        })
    }
}

/// Where the stream of a run has its [`Unread`]; before it has, there is something else.
static UNREAD: Field = Field::new("_unread");

/// `am_anext` of the stream of a run: without the frame of Python's that its `__anext__` takes, which costs as much as a pull.
///
/// # Safety
///
/// CPython's contract for the slot.
unsafe extern "C" fn anext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the slots of a type are called on an attached thread, with a live object.
    let (py, stream) = unsafe {
        let py = Python::assume_attached();
        (py, Bound::from_borrowed_ptr(py, object))
    };
    let unread = UNREAD
        .read(&stream)
        .unwrap_or_else(|| stream.getattr(intern!(py, "_unread")));
    let made = unread.and_then(|unread| match unread.cast_into_exact::<Unread>() {
        Ok(unread) => Unread::take(unread),
        Err(_) => stream.call_method0(intern!(py, "__anext__")),
    });
    match made {
        Ok(take) => take.into_ptr(),
        Err(error) => {
            error.restore(py);
            std::ptr::null_mut()
        }
    }
}

/// Gives the class of the stream of a run the short way to `anext()`: to the envelopes of its `_unread`, once it has that.
#[pyfunction]
pub(crate) fn quicken(class_: &Bound<'_, PyType>) {
    if !control::LAYOUT.is_used() {
        return;
    }
    // SAFETY: a class has these slots, and one that is given another `__anext__` later gets CPython's again.
    unsafe {
        let methods = (*class_.as_type_ptr()).tp_as_async;
        if !methods.is_null() {
            (*methods).am_anext = Some(anext);
        }
    }
}

/// One pull of an envelope.
#[derive(Debug)]
pub(crate) struct Take {
    unread: Py<Unread>,
    pending: Option<Pending<Get<Py<PyAny>>>>,
}

static CLASS: Class = Class::new();

impl Take {
    fn step<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        let unread = self.unread.bind(py).clone();
        let buffer = unread.get().buffer.get();
        if self.pending.is_none() {
            buffer.check(py)?;
            unread.get().check_loop(py)?;
            match buffer.core().try_get() {
                Ok(entry) => return unread.get().hand_over(entry.into_bound(py)),
                Err(TryGetError::Ended) => return Err(PyStopAsyncIteration::new_err(())),
                Err(TryGetError::Empty) => {}
            }
        }
        let pending = self
            .pending
            .get_or_insert_with(|| Pending::new(buffer.core().get()));
        match pending.step(py)? {
            Ok(Ok(entry)) => unread.get().hand_over(entry.into_bound(py)),
            Ok(Err(_)) if unread.get().shut.load(Relaxed) => Err(errors::closed(
                py,
                "the run was closed while this pull waited for an envelope",
            )),
            Ok(Err(_)) => Err(PyStopAsyncIteration::new_err(())),
            Err(object) => Ok(Step::Yield(object)),
        }
    }
}

impl Unread {
    /// Refuses any loop but that of the run.
    #[inline]
    fn check_loop(&self, py: Python<'_>) -> PyResult<()> {
        // A step of a task reads one envelope after the other, all on one loop.
        let step = asyncio::steps(py).map(|step| (step, this_thread()));
        if step.is_some() && *self.seen.borrow(py) == step {
            return Ok(());
        }
        let is_here = self.event_loop.get().is_some_and(|event_loop| {
            let event_loop = event_loop.bind(py);
            asyncio::is_known_to_run_here(event_loop)
                || asyncio::running_here(py).is_some_and(|running| running.is(event_loop))
        });
        if is_here {
            *self.seen.borrow(py) = step;
            Ok(())
        } else {
            Err(errors::wrong_loop(
                py,
                "this run belongs to another event loop, where it started; pull it there, and hand what it gives over in a \
                 PushPullBufferObj, which any loop may use",
            ))
        }
    }

    /// From here on nothing waits, so that nothing that was taken can be lost.
    #[inline]
    fn hand_over<'py>(&self, entry: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = entry.py();
        if self.contested.load(Relaxed) {
            let taken = self
                .taken
                .borrow(py)
                .as_ref()
                .map(|taken| taken.clone_ref(py));
            if let Some(taken) = taken {
                taken.bind(py).call0()?;
            }
        }
        if entry.is_exact_instance_of::<Envelope>() {
            Ok(Step::Return(entry))
        } else {
            self.other.bind(py).call1((entry,)).map(Step::Return)
        }
    }
}

impl Coroutine for Take {
    const NAME: &'static CStr = c"headrace._core.Take";

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(py))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.abandon(py);
        Err(error)
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.pending = None;
    }
}

traverse!(Take { unread, pending });
