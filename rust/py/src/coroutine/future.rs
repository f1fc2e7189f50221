//! The future that a task waits on, with everything that asyncio requires of a future.
//! `park.rs` makes it for operations that wait, and `loop_mailbox.rs` resolves it.
//!
//! A [`Parked`](super::Parked) operation yields it to its driver, which is usually asyncio's own task. The task uses the interface of
//! `asyncio.Future`: the mark of a future that was awaited and not yielded by mistake, the loop, the callbacks, the result, and
//! `cancel()`. No other code uses the future: users await the operation, and `wait`, `shield` and `gather` wrap that in a task first.
//!
//! It differs from `asyncio.Future` in the time of its callbacks. `asyncio.Future` schedules each callback by itself. The callbacks of
//! these futures run together with all others of their event-loop iteration ([`super::wake_batch`]). This saves each waiter a handle and
//! its run, which is half of the cost of a wake-up.

use std::ffi::CStr;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyWeakrefMethods};
use pyo3::{PyTraverseError, PyVisit};

use super::loop_mailbox::{Key, Mailbox};
use super::{Coroutine, Native, Step};
use crate::errors::RaisedError;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::runtime::asyncio::InContext;
use crate::runtime::private_layout::{self, Layout};

/// Reading the C name of a builtin function, to recognise the callback of asyncio's own task. The fallback treats that callback like
/// any other.
pub(crate) static CALLBACK_LAYOUT: Layout = Layout::new("builtin_functions", has_known_names);

/// See the top of this file.
#[pyclass(name = "Future", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyFuture {
    pub(super) mailbox: Arc<Mailbox>,
    /// The key of its slot in the mailbox.
    pub(super) key: Key,
    /// asyncio's mark: `await` sets it, and the task that receives the future clears it.
    is_awaited: AtomicBool,
    state: GilCell<State>,
}

#[derive(Debug, Default)]
struct State {
    outcome: Outcome,
    /// A task adds one callback, and other code rarely adds another.
    first: Option<Callback>,
    rest: Vec<Callback>,
}

#[derive(Debug, Default)]
enum Outcome {
    #[default]
    Pending,
    /// With the result `None`.
    Done,
    /// With the message, if there is one.
    Cancelled(Option<Py<PyAny>>),
}

/// A function, and the context that it is called in.
#[derive(Debug)]
struct Callback {
    function: Py<PyAny>,
    context: Py<PyAny>,
}

traverse!(
    enum Outcome {
        Pending,
        Done,
        Cancelled(message),
    }
);
traverse!(Callback { function, context });
traverse!(State {
    outcome,
    first,
    rest
});

impl PyFuture {
    pub(super) fn new(py: Python<'_>, mailbox: Arc<Mailbox>, key: Key) -> PyResult<Py<Self>> {
        let future = Self {
            mailbox,
            key,
            is_awaited: AtomicBool::new(false),
            state: GilCell::default(),
        };
        Py::new(py, future)
    }

    /// Mark the future as awaited.
    pub(super) fn mark(&self) {
        self.is_awaited.store(true, Ordering::Relaxed);
    }

    /// Resolve the future; return `false` if it was done already. Otherwise the caller must schedule the callbacks.
    pub(super) fn resolve(&self, py: Python<'_>) -> bool {
        self.finish(py, Outcome::Done)
    }

    /// Wake the waiter, as the mailbox does, but without the slot, which may have another owner by now. Called on the
    /// event loop's thread.
    pub(crate) fn wake(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        if this.resolve(slf.py()) {
            this.mailbox.call_back(slf)?;
        }
        Ok(())
    }

    fn finish(&self, py: Python<'_>, outcome: Outcome) -> bool {
        let mut state = self.state.borrow(py);
        let is_pending = matches!(state.outcome, Outcome::Pending);
        if is_pending {
            state.outcome = outcome;
        }
        is_pending
    }

    /// Call the callbacks in order, each in its context. Stops at the first one that fails, and keep those after it.
    pub(super) fn call_back(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        loop {
            let mut state = slf.get().state.borrow(py);
            let callback = match state.first.take() {
                Some(first) => first,
                None if state.rest.is_empty() => return Ok(()),
                None => state.rest.remove(0),
            };
            drop(state);
            callback.call(slf)?;
        }
    }
}

/// Return the name in the definition of a builtin function.
///
/// # Safety
///
/// A live object of exactly that type.
#[inline]
unsafe fn name_of<'a>(function: *mut ffi::PyObject) -> &'a CStr {
    // SAFETY: the caller's promise. The definition and its name live as long as the function.
    unsafe { CStr::from_ptr((*(*function.cast::<ffi::PyCFunctionObject>()).m_ml).ml_name) }
}

/// Read the name of `len`.
fn has_known_names(py: Python<'_>) -> PyResult<bool> {
    let len = py.import("builtins")?.getattr("len")?;
    // SAFETY: a live object, whose type is compared before a field is read. The definition is between the header and the two fields that
    // Python shows.
    unsafe {
        if ffi::PyCFunction_CheckExact(len.as_ptr()) == 0
            || !private_layout::has_layout_of::<ffi::PyCFunctionObject>(&len.get_type())?
        {
            return Ok(false);
        }
        let function = len.as_ptr().cast::<ffi::PyCFunctionObject>();
        Ok(
            ptr::eq((*function).m_self, len.getattr("__self__")?.as_ptr())
                && ptr::eq((*function).m_module, len.getattr("__module__")?.as_ptr())
                && name_of(len.as_ptr()) == c"len",
        )
    }
}

impl Callback {
    /// Return whether this is the callback that asyncio's C task adds to its awaited future.
    fn is_of_task(&self) -> bool {
        let function = self.function.as_ptr();
        // SAFETY: a live object, whose type is tested before the name is read.
        unsafe {
            ffi::PyCFunction_CheckExact(function) != 0
                && CALLBACK_LAYOUT.is_used()
                && name_of(function) == c"task_wakeup"
        }
    }

    fn call(&self, future: &Bound<'_, PyFuture>) -> PyResult<()> {
        let py = future.py();
        let future = if self.is_of_task() && !future.get().cancelled(py) {
            // The task only needs the result. It calls a method for it, except on asyncio's own future, whose field it reads: 1,400
            // instructions less.
            done(py)?
        } else {
            future.as_any()
        };
        let context = self.context.bind(py);
        let _inside = InContext::enter(context)?;
        self.function.bind(py).call1((future,)).map(drop)
    }
}

/// Return an `asyncio.Future` with the result `None`, of no event loop.
fn done(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static DONE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let done = DONE.get_or_try_init(py, || {
        let keywords = PyDict::new(py);
        keywords.set_item("loop", Py::new(py, PyNoLoop)?)?;
        let future = py.import("asyncio")?.getattr("Future")?;
        let future = future.call((), Some(&keywords))?;
        future.call_method1("set_result", (py.None(),))?;
        PyResult::Ok(future.unbind())
    });
    Ok(done?.bind(py))
}

/// The stand-in for the event loop of that future, which calls only this method.
#[pyclass(name = "NoLoop", frozen, module = "headrace._core")]
struct PyNoLoop;

#[pymethods]
impl PyNoLoop {
    #[expect(clippy::unused_self, reason = "it is a method in Python")]
    fn get_debug(&self) -> bool {
        false
    }
}

#[pymethods]
impl PyFuture {
    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, is_awaited: bool) {
        self.is_awaited.store(is_awaited, Ordering::Relaxed);
    }

    fn get_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = self.mailbox.event_loop.bind(py).upgrade();
        event_loop.ok_or_else(|| PyRuntimeError::new_err("the event loop of this future is gone"))
    }

    fn done(&self, py: Python<'_>) -> bool {
        !matches!(self.state.borrow(py).outcome, Outcome::Pending)
    }

    pub(crate) fn cancelled(&self, py: Python<'_>) -> bool {
        matches!(self.state.borrow(py).outcome, Outcome::Cancelled(_))
    }

    fn result(&self, py: Python<'_>) -> PyResult<()> {
        let message = match &self.state.borrow(py).outcome {
            Outcome::Done => return Ok(()),
            Outcome::Cancelled(message) => {
                Some(message.as_ref().map(|message| message.clone_ref(py)))
            }
            Outcome::Pending => None,
        };
        Err(match message {
            Some(message) => asyncio::cancellation(py, message),
            None => asyncio::invalid_state(py, "Result is not set."),
        })
    }

    fn exception(&self, py: Python<'_>) -> PyResult<()> {
        self.result(py)
    }

    #[pyo3(signature = (msg = None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        let this = slf.get();
        let is_new = this.finish(slf.py(), Outcome::Cancelled(msg));
        if is_new {
            this.mailbox.call_back(slf)?;
        }
        Ok(is_new)
    }

    #[pyo3(signature = (callback, /, *, context = None))]
    fn add_done_callback(
        slf: &Bound<'_, Self>,
        callback: Py<PyAny>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let context = match context {
            Some(context) => context,
            None => asyncio::copy_context(py)?.unbind(),
        };
        let callback = Callback {
            function: callback,
            context,
        };
        let mut state = this.state.borrow(py);
        if matches!(state.outcome, Outcome::Pending) {
            if state.first.is_none() && state.rest.is_empty() {
                state.first = Some(callback);
            } else {
                state.rest.push(callback);
            }
            return Ok(());
        }
        drop(state);
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), callback.context)?;
        let event_loop = this.get_loop(py)?;
        let call_soon = event_loop.getattr(intern!(py, "call_soon"))?;
        call_soon.call((callback.function, slf), Some(&keywords))?;
        Ok(())
    }

    /// Return the number of removed callbacks.
    fn remove_done_callback(&self, callback: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = callback.py();
        let known: Vec<_> = {
            let state = self.state.borrow(py);
            if !matches!(state.outcome, Outcome::Pending) {
                return Ok(0);
            }
            let known = state.first.iter().chain(&state.rest);
            known.map(|known| known.function.clone_ref(py)).collect()
        };
        let mut removed = Vec::new();
        for known in known {
            // Python code, which may change this future.
            if !known.bind(py).eq(callback)? {
                continue;
            }
            let mut state = self.state.borrow(py);
            if (state.first.as_ref()).is_some_and(|first| first.function.is(&known)) {
                removed.extend(state.first.take());
            } else if let Some(at) = (state.rest.iter()).position(|other| other.function.is(&known))
            {
                removed.push(state.rest.remove(at));
            }
        }
        Ok(removed.len())
    }

    fn __await__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(slf.py(), || Await {
            future: slf.unbind(),
            is_begun: false,
        })
    }

    fn __iter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Self::__await__(slf)
    }

    fn __repr__(&self, py: Python<'_>) -> &'static str {
        match self.state.borrow(py).outcome {
            Outcome::Pending => "<Future: pending>",
            Outcome::Done => "<Future: done>",
            Outcome::Cancelled(_) => "<Future: cancelled>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.state.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.state.set(py, State::default());
    }
}

/// The iterator of `await future`.
#[derive(Debug)]
struct Await {
    future: Py<PyFuture>,
    is_begun: bool,
}

impl Await {
    fn step<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        let future = self.future.bind(py);
        if future.get().done(py) {
            future.get().result(py)?;
            return Ok(Step::Return(py.None().into_bound(py)));
        }
        if self.is_begun {
            return Err(PyRuntimeError::new_err("await wasn't used with future"));
        }
        self.is_begun = true;
        future.get().mark();
        Ok(Step::Yield(future.clone().into_any()))
    }
}

impl Coroutine for Await {
    const NAME: &'static CStr = c"headrace._core.Await";

    super::own_class!();

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(py))
    }
}

traverse!(Await { future });

pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    Native::<Await>::register(py)
}
