//! `PySignal`: the Python class of the core's signal. `WaitObject` in `headrace/signal.py` derives from it.

use std::ffi::CStr;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use headrace_core::signal as core;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::coroutine::operation::{Operation, Ready};
use crate::coroutine::pending::Placed;
use crate::coroutine::{Native, own_class};
use crate::errors;
use crate::object::gc::{self, traverse};
use crate::runtime::blocking_wait;
use crate::runtime::blocking_wait::Blocking;
use crate::runtime::fork_guard::ProcessId;

/// The value or the error that a signal was given.
#[derive(Debug)]
enum Outcome {
    Value(Py<PyAny>),
    Error(Py<PyAny>),
}

/// Delivers one value or one error to every waiter, from any thread.
#[pyclass(
    subclass,
    generic,
    frozen,
    weakref,
    name = "Signal",
    module = "headrace._core"
)]
#[derive(Debug)]
pub(crate) struct PySignal {
    process: ProcessId,
    core: Arc<core::Signal<Outcome>>,
}

#[pymethods]
impl PySignal {
    #[new]
    fn new() -> Self {
        Self {
            process: ProcessId::current(),
            core: core::Signal::new(),
        }
    }

    /// Wait for the next value.
    fn wait(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Wait::make(slf, false)
    }

    /// Wait in a thread without an event loop, for at most `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn wait_sync<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        const CALL: Blocking = Blocking {
            name: "wait_sync()",
            instead: "await wait()",
        };
        self.check(py)?;
        let until = timeout.map(blocking_wait::deadline).transpose()?.flatten();
        let mut wait = self.core.wait();
        // A kept value is returned without waiting, even in the thread of an event loop.
        let outcome = match Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => blocking_wait::wait(py, CALL, wait, until)?,
        };
        match outcome {
            Some(outcome) => to_python(py, &outcome),
            None => Err(blocking_wait::late("no value came", timeout)),
        }
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Wait::make(slf, true)
    }

    /// Deliver `value` to every waiter. Without a waiter, keep it for the next one.
    #[pyo3(signature = (value = None))]
    fn resolve(&self, py: Python<'_>, value: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        self.check(py)?;
        self.core.publish(
            Outcome::Value(value.map_or_else(|| py.None(), Bound::unbind)),
            false,
        );
        Ok(())
    }

    /// Raise `error` in every current and later waiter, until `reset()`.
    fn reject(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(error.py())?;
        if !error.is_instance_of::<PyBaseException>() {
            return Err(errors::wrong_type("error", "an exception", error));
        }
        self.core
            .publish(Outcome::Error(error.clone().unbind()), true);
        Ok(())
    }

    /// Drop a kept value or error.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        self.check(py)?;
        self.core.reset();
        Ok(())
    }

    /// Stop the signal: every current and later waiter raises `ClosedError`, and iteration ends.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.check(py)?;
        self.core.stop();
        Ok(())
    }

    /// Return whether the signal was stopped.
    #[getter]
    fn stopped(&self) -> bool {
        self.core.is_stopped()
    }

    /// Return the number of waiters.
    #[getter]
    fn waiting(&self) -> usize {
        self.core.waiting()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            let mut result = Ok(());
            self.core.visit(&mut |outcome| {
                if result.is_ok() {
                    let (Outcome::Value(value) | Outcome::Error(value)) = outcome;
                    result = visit(value);
                }
            });
            result
        })
    }

    fn __clear__(&self) {
        self.core.reset();
    }
}

impl PySignal {
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check(py, "signal")?;
        if self.core.is_broken() {
            Err(errors::broken(py, "signal"))
        } else {
            Ok(())
        }
    }
}

/// Convert the outcome of a wait to a Python result.
fn to_python<'py>(
    py: Python<'py>,
    outcome: &Result<Arc<Outcome>, core::Stopped>,
) -> PyResult<Bound<'py, PyAny>> {
    match outcome.as_ref().map(Arc::as_ref) {
        Ok(Outcome::Value(value)) => Ok(value.bind(py).clone()),
        Ok(Outcome::Error(error)) => Err(PyErr::from_value(error.bind(py).clone())),
        Err(core::Stopped) => Err(errors::closed(py, "the signal was stopped")),
    }
}

/// One wait for a signal.
#[derive(Debug)]
struct Wait {
    /// Kept alive by the wait. The collector finds a value of the core through this reference.
    signal: Py<PySignal>,
    future: core::Wait<Outcome>,
    is_iteration: bool,
}

impl Wait {
    fn make(signal: Bound<'_, PySignal>, is_iteration: bool) -> PyResult<Bound<'_, PyAny>> {
        let py = signal.py();
        let future = signal.get().core.wait();
        let signal = signal.unbind();
        Ready::make(
            py,
            Self {
                signal,
                future,
                is_iteration,
            },
        )
    }
}

impl Operation for Wait {
    const NAME: &'static CStr = c"headrace._core.Wait";

    own_class!();

    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>> {
        if let Err(error) = self.signal.get().check(py) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.future)
            .poll(context)
            .map(|outcome| match outcome {
                Err(core::Stopped) if self.is_iteration => Err(errors::end()),
                outcome => to_python(py, &outcome),
            })
    }

    fn forward(&self) -> Option<Box<dyn FnOnce() + Send>> {
        Placed::forward(&self.future)
    }
}

traverse!(Wait { signal });

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PySignal>()?;
    Native::<Ready<Wait>>::register(module.py())
}
