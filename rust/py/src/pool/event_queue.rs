//! `EventQueue`: the unread events of a run, and the awaitable that reads the next one.
//! `headrace/pool/event_queue.py` wraps it; the engine adds the events.

use std::collections::VecDeque;
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

use super::envelope::PyEnvelope;
use crate::buffer::PyBuffer;
use crate::coroutine::{Coroutine, Native, Pending, Step, own_class};
use crate::errors::{self, RaisedError};
use crate::object::fast_attr::Field;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::object::output_slots::OutputSlots;
use crate::pull::control;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::this_thread;

/// The unread envelopes of a run. They are in a buffer, or in the slots of an ordered run.
#[pyclass(name = "EventQueue", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyEventQueue {
    pub(super) buffer: Py<PyBuffer>,
    /// The only event loop on which envelopes may be pulled; set when the run starts.
    event_loop: OnceLock<Py<PyAny>>,
    /// The task step and the thread in which that loop was last seen running.
    seen: GilCell<Option<(u64, u64)>>,
    /// The callable that receives a buffer entry that is not an envelope, and raises its error.
    other: Py<PyAny>,
    /// The callable that resumes the next task waiting for space, after an entry was taken; `None` once the run has finished.
    taken: GilCell<Option<Py<PyAny>>>,
    /// Whether a task waits for space.
    pub(super) contested: AtomicBool,
    /// Whether new entries are dropped.
    pub(super) shut: AtomicBool,
    /// The number of unread events at which tasks that yield must wait. In an ordered run, as many more may be held in slots.
    most: usize,
    /// The maximum number of slots; `None` unless the run is ordered.
    window: Option<usize>,
    slots: GilCell<OutputSlots<Py<PyAny>>>,
    /// The ids of the tasks of the slots; 0 for the slot of an error of the run.
    tasks: GilCell<VecDeque<u64>>,
    /// Converts the error of a task to the one that a pull raises, if a pull returns the final value of a task in place of an envelope.
    as_error: OnceLock<Py<PyAny>>,
}

#[pymethods]
impl PyEventQueue {
    #[new]
    #[pyo3(signature = (buffer, other, taken, *, most, window))]
    fn new(
        buffer: Py<PyBuffer>,
        other: Py<PyAny>,
        taken: Py<PyAny>,
        most: usize,
        window: Option<usize>,
    ) -> Self {
        Self {
            buffer,
            event_loop: OnceLock::new(),
            seen: GilCell::new(None),
            other,
            taken: GilCell::new(Some(taken)),
            contested: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            most,
            window,
            slots: GilCell::default(),
            tasks: GilCell::default(),
            as_error: OnceLock::new(),
        }
    }

    /// Start the run on this event loop.
    fn begin(&self, event_loop: Py<PyAny>) -> PyResult<()> {
        let begun = self.event_loop.set(event_loop);
        begun.map_err(|_| PyRuntimeError::new_err("this run has started already"))
    }

    /// Return the final values of tasks from now on, in place of envelopes. For a task that failed, raise `as_error(error)`.
    fn give_results(&self, as_error: Py<PyAny>) {
        // A run is read in one way only, so a second call passes the same function.
        let _ = self.as_error.set(as_error);
    }

    /// Return an awaitable for the next envelope, or for the next final value.
    fn take(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(slf.py(), || Take {
            events: slf.unbind(),
            pending: None,
        })
    }

    /// Append an entry.
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

    /// Append a slot for an accepted task; return `None` unless the run is ordered.
    #[pyo3(signature = (task_id = 0))]
    pub(super) fn new_slot(&self, py: Python<'_>, task_id: u64) -> Option<u64> {
        self.window?;
        self.tasks.borrow(py).push_back(task_id);
        Some(self.slots.borrow(py).add())
    }

    /// Put an event into a slot, even if there is no space.
    #[inline]
    pub(super) fn put_at(
        &self,
        py: Python<'_>,
        slot: Option<u64>,
        event: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let Some(slot) = slot else {
            return self.put(py, event);
        };
        let ready = self.slots.borrow(py).hold(slot, event.unbind());
        ready.map_or(Ok(()), |event| self.put(py, event.into_bound(py)))
    }

    /// End the slot of a task that has ended, and release the events that become readable.
    pub(super) fn leave(&self, py: Python<'_>, slot: u64) -> PyResult<()> {
        let (ready, left) = {
            let mut slots = self.slots.borrow(py);
            (slots.end(slot), slots.len())
        };
        let mut tasks = self.tasks.borrow(py);
        let ended = tasks.len() - left;
        tasks.drain(..ended);
        drop(tasks);
        for event in ready {
            self.put(py, event.into_bound(py))?;
        }
        self.wake_next(py)
    }

    /// Return the slot of the first task that has not ended.
    #[getter]
    fn first_slot(&self, py: Python<'_>) -> u64 {
        self.slots.borrow(py).first()
    }

    /// Return the id of the first task that has not ended, in an ordered run whose consumer has read all readable events.
    fn awaited_task(&self, py: Python<'_>) -> Option<u64> {
        let first = self.tasks.borrow(py).front().copied();
        first.filter(|_| self.buffer.get().core().is_empty())
    }

    /// Return whether there is space for an event of a slot, or, without a slot, for another task.
    #[pyo3(signature = (slot = None))]
    fn fits(&self, py: Python<'_>, slot: Option<u64>) -> bool {
        let is_readable = self.buffer.get().core().len() < self.most;
        if self.window.is_none() {
            return is_readable;
        }
        let slots = self.slots.borrow(py);
        match slot {
            Some(slot) if slots.is_first(slot) => is_readable,
            Some(_) => slots.held < self.most,
            None => is_readable && slots.held < self.most,
        }
    }

    /// Return whether there is space and no earlier waiter. In an ordered run waiters may be overtaken, because the slots keep the order.
    #[pyo3(signature = (slot = None))]
    pub(super) fn has_room(&self, py: Python<'_>, slot: Option<u64>) -> bool {
        (self.window.is_some() || !self.contested.load(Relaxed)) && self.fits(py, slot)
    }

    #[getter]
    fn contested(&self) -> bool {
        self.contested.load(Relaxed)
    }

    #[setter]
    fn set_contested(&self, contested: bool) {
        self.contested.store(contested, Relaxed);
    }

    /// Drop all new entries: the consumer has stopped reading.
    fn shut(&self) {
        self.shut.store(true, Relaxed);
    }

    /// Drop all new and unread entries. A pull that waits raises `ClosedError`.
    fn close(&self) {
        self.shut.store(true, Relaxed);
        let left = self.buffer.get().core().close();
        drop(left);
    }

    /// End the stream after the unread entries: no more will be put.
    fn finish(&self, py: Python<'_>) {
        self.buffer.get().core().finish();
        let taken = self.taken.borrow(py).take();
        drop(taken);
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.buffer.get().core().len() + self.slots.borrow(py).held
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.buffer)?;
        visit.call(&self.other)?;
        gc::visit(&visit, |visit| {
            self.event_loop.traverse(visit)?;
            self.as_error.traverse(visit)?;
            self.slots.traverse(visit)?;
            self.taken.traverse(visit)
        })
    }
}

/// The attribute of a run's stream that holds its [`PyEventQueue`], or another object before the run starts. There are two classes of
/// such streams: one of envelopes, and one of results.
static UNREAD: [Field; 2] = [Field::new("_events"), Field::new("_events")];

/// Return the next pull: the `am_anext` slot of a run's stream. It avoids the Python frame of `__anext__`, which costs as much as a pull.
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
    let events = (UNREAD.iter())
        .find_map(|field| field.read(&stream))
        .unwrap_or_else(|| stream.getattr(intern!(py, "_events")));
    let made = events.and_then(|events| match events.cast_into_exact::<PyEventQueue>() {
        Ok(events) => PyEventQueue::take(events),
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

/// Install the fast path of `anext()` in the class of a run's stream. It reads the `_events` of the stream directly.
#[pyfunction]
pub(crate) fn install_native_anext(class_: &Bound<'_, PyType>) {
    if !control::LAYOUT.is_used() {
        return;
    }
    // SAFETY: a live class has these slots. CPython replaces the slot if `__anext__` is assigned later.
    unsafe {
        let methods = (*class_.as_type_ptr()).tp_as_async;
        if !methods.is_null() {
            (*methods).am_anext = Some(anext);
        }
    }
}

/// One pull of an envelope or of a result.
#[derive(Debug)]
pub(crate) struct Take {
    events: Py<PyEventQueue>,
    pending: Option<Pending<Get<Py<PyAny>>>>,
}

impl Take {
    fn step<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        loop {
            let envelope = match self.step_envelope(py)? {
                Step::Return(envelope) => envelope,
                step @ Step::Yield(_) => return Ok(step),
            };
            let Some(as_error) = self.events.get().as_error.get() else {
                return Ok(Step::Return(envelope));
            };
            let envelope = envelope.cast_into_exact::<PyEnvelope>()?;
            match envelope.get().outcome(py)? {
                Some(Ok(value)) => return Ok(Step::Return(value)),
                Some(Err(error)) => {
                    return Err(PyErr::from_value(as_error.bind(py).call1((error,))?));
                }
                // A value that the task yielded.
                None => self.pending = None,
            }
        }
    }

    fn step_envelope<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        let events = self.events.bind(py).clone();
        let buffer = events.get().buffer.get();
        if self.pending.is_none() {
            buffer.check(py)?;
            events.get().check_loop(py)?;
            match buffer.core().try_get() {
                Ok(entry) => return events.get().hand_over(entry.into_bound(py)),
                Err(TryGetError::Ended) => return Err(PyStopAsyncIteration::new_err(())),
                Err(TryGetError::Empty) => {}
            }
        }
        let pending = self
            .pending
            .get_or_insert_with(|| Pending::new(buffer.core().get()));
        match pending.step(py)? {
            Ok(Ok(entry)) => events.get().hand_over(entry.into_bound(py)),
            Ok(Err(_)) if events.get().shut.load(Relaxed) => Err(errors::closed(
                py,
                "the run was closed while this pull waited for an envelope",
            )),
            Ok(Err(_)) => Err(PyStopAsyncIteration::new_err(())),
            Err(object) => Ok(Step::Yield(object)),
        }
    }
}

impl PyEventQueue {
    /// Return whether the window of an ordered run has no slots for `more` tasks.
    pub(super) fn is_window_full(&self, py: Python<'_>, more: usize) -> bool {
        (self.window).is_some_and(|window| self.slots.borrow(py).len() + more > window)
    }

    /// Resume the next task that waits for space, if there is one.
    #[inline]
    pub(super) fn wake_next(&self, py: Python<'_>) -> PyResult<()> {
        if !self.contested.load(Relaxed) {
            return Ok(());
        }
        let taken = (self.taken.borrow(py).as_ref()).map(|taken| taken.clone_ref(py));
        taken.map_or(Ok(()), |taken| taken.bind(py).call0().map(drop))
    }

    /// Raise an error unless the running event loop is that of the run.
    #[inline]
    fn check_loop(&self, py: Python<'_>) -> PyResult<()> {
        // One step of a task may read many envelopes, all on the same loop, so the loop is checked once a step.
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

    /// Return an entry that was taken, or raise its error. This does not wait, so the entry cannot be lost to a cancellation.
    #[inline]
    fn hand_over<'py>(&self, entry: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = entry.py();
        self.wake_next(py)?;
        if entry.is_exact_instance_of::<PyEnvelope>() {
            Ok(Step::Return(entry))
        } else {
            self.other.bind(py).call1((entry,)).map(Step::Return)
        }
    }
}

impl Coroutine for Take {
    const NAME: &'static CStr = c"headrace._core.Take";

    own_class!();

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

traverse!(Take { events, pending });
