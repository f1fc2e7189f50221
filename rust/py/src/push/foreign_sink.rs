//! `PyDelivery`: pushes into any sink, and a record of the links that accepted the item of a failed push.
//! `headrace/push/_drain.py` and `headrace/bridge.py` make it.
//!
//! The error of a push names these links in `accepted_by`. But `close()` of a coroutine, explicit
//! or by its destructor, does not pass that error on to the outer coroutines. So it is recorded
//! here, inside the innermost Python coroutine.

use std::ffi::CStr;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use crate::coroutine::{Coroutine, Inner, Native, Step, own_class};
use crate::errors::RaisedError;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;

/// A sequence of pushes into sinks.
#[pyclass(name = "Delivery", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyDelivery {
    accepted_by: GilCell<Option<Py<PyAny>>>,
}

#[pymethods]
impl PyDelivery {
    #[new]
    fn new() -> Self {
        Self {
            accepted_by: GilCell::new(None),
        }
    }

    /// `await sink.next(item)`.
    fn push<'py>(
        slf: Bound<'py, Self>,
        sink: Bound<'py, PyAny>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Native::alloc(slf.py(), || Delivering {
            delivery: slf.unbind(),
            phase: SinkPhase::New(sink.unbind(), item.unbind()),
        })
    }

    /// Return the links that accepted the item of the last push, if that push failed.
    #[getter]
    fn accepted_by<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &*self.accepted_by.borrow(py) {
            Some(known) => known.bind(py).clone(),
            None => PyTuple::empty(py).into_any(),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.accepted_by.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.accepted_by.set(py, None);
    }
}

/// The awaitable of one push.
#[derive(Debug)]
pub(crate) struct Delivering {
    delivery: Py<PyDelivery>,
    phase: SinkPhase,
}

#[derive(Debug)]
enum SinkPhase {
    /// The sink and the item.
    New(Py<PyAny>, Py<PyAny>),
    Waiting(Inner),
    Done,
}

impl Delivering {
    /// Handle one step of the sink's awaitable.
    fn on_step<'py>(
        &mut self,
        py: Python<'py>,
        inner: Inner,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Step<'py>> {
        match step {
            Ok(Step::Yield(object)) => {
                self.phase = SinkPhase::Waiting(inner);
                Ok(Step::Yield(object))
            }
            Ok(returned) => Ok(returned),
            Err(error) => Err(self.on_error(py, error)),
        }
    }

    #[cold]
    fn on_error(&self, py: Python<'_>, error: PyErr) -> PyErr {
        let known = error.value(py).getattr_opt(intern!(py, "accepted_by"));
        let known = known.ok().flatten().map(Bound::unbind);
        self.delivery.get().accepted_by.set(py, known);
        error
    }

    fn step<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let inner = match std::mem::replace(&mut self.phase, SinkPhase::Done) {
            SinkPhase::New(sink, item) => {
                self.delivery.get().accepted_by.set(py, None);
                let next = sink.bind(py).call_method1(intern!(py, "next"), (item,));
                next.and_then(Inner::of)
                    .map_err(|error| self.on_error(py, error))?
            }
            SinkPhase::Waiting(inner) => inner,
            SinkPhase::Done => unreachable!("a finished awaitable is not stepped again"),
        };
        let step = inner.send(value);
        self.on_step(py, inner, step)
    }
}

impl Coroutine for Delivering {
    const NAME: &'static CStr = c"headrace._core.Delivering";

    own_class!();

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        RaisedError::set_from(value.py(), self.step(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        match std::mem::replace(&mut self.phase, SinkPhase::Done) {
            SinkPhase::Waiting(inner) => {
                let step = inner.throw(py, error);
                self.on_step(py, inner, step)
            }
            // The sink never received the item.
            SinkPhase::New(..) | SinkPhase::Done => {
                self.delivery.get().accepted_by.set(py, None);
                Err(error)
            }
        }
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.phase = SinkPhase::Done;
    }
}

traverse!(Delivering { delivery, phase });

traverse!(
    enum SinkPhase {
        New(sink, item),
        Waiting(inner),
        Done {},
    }
);
