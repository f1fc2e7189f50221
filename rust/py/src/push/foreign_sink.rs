//! `Delivery`: pushes into a sink of anybody's, and who has the item if one does not come to its end.
//!
//! The error of a push says so in its `accepted_by`. But `close()` of a coroutine, by hand or because
//! it is dropped, tells those above of no error but its own. So it is noted here, below the first
//! coroutine of Python's.

use std::ffi::CStr;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use crate::coroutine::{Class, Coroutine, Inner, Native, Step};
use crate::errors::RaisedError;
use crate::object::gc::{self, Traverse, VisitError, Visitor};
use crate::object::gil_cell::GilCell;

/// One push after the other.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Delivery {
    accepted_by: GilCell<Option<Py<PyAny>>>,
}

#[pymethods]
impl Delivery {
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
            stage: Stage::New(sink.unbind(), item.unbind()),
        })
    }

    /// Who has the item of the last push all the same, if it went wrong.
    #[getter]
    fn accepted_by<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &*self.accepted_by.borrow(py) {
            Some(known) => known.bind(py).clone(),
            None => PyTuple::empty(py).into_any(),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            match self.accepted_by.peek_for_gc().as_deref() {
                Some(Some(known)) => visit(known),
                _ => Ok(()),
            }
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        self.note(py, None);
    }
}

impl Delivery {
    fn note(&self, py: Python<'_>, known: Option<Py<PyAny>>) {
        // Dropped with the borrow gone: a destructor may come back here.
        let old = std::mem::replace(&mut *self.accepted_by.borrow(py), known);
        drop(old);
    }
}

/// One push.
#[derive(Debug)]
pub(crate) struct Delivering {
    delivery: Py<Delivery>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The sink and the item.
    New(Py<PyAny>, Py<PyAny>),
    Waiting(Inner),
    Done,
}

static CLASS: Class = Class::new();

impl Delivering {
    /// What a step of the sink's own awaitable came to.
    fn stepped<'py>(
        &mut self,
        py: Python<'py>,
        inner: Inner,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Step<'py>> {
        match step {
            Ok(Step::Yield(object)) => {
                self.stage = Stage::Waiting(inner);
                Ok(Step::Yield(object))
            }
            Ok(returned) => Ok(returned),
            Err(error) => Err(self.failed(py, error)),
        }
    }

    #[cold]
    fn failed(&self, py: Python<'_>, error: PyErr) -> PyErr {
        let known = error.value(py).getattr_opt(intern!(py, "accepted_by"));
        let known = known.ok().flatten().map(Bound::unbind);
        self.delivery.get().note(py, known);
        error
    }

    fn step<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::New(sink, item) => {
                self.delivery.get().note(py, None);
                let begun = sink
                    .bind(py)
                    .call_method1(intern!(py, "next"), (item,))
                    .and_then(Inner::of);
                match begun {
                    Ok(inner) => {
                        let step = inner.send(value);
                        self.stepped(py, inner, step)
                    }
                    Err(error) => Err(self.failed(py, error)),
                }
            }
            Stage::Waiting(inner) => {
                let step = inner.send(value);
                self.stepped(py, inner, step)
            }
            Stage::Done => unreachable!("a finished awaitable is not stepped again"),
        }
    }
}

impl Coroutine for Delivering {
    const NAME: &'static CStr = c"headrace._core.Delivering";

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        RaisedError::set_from(value.py(), self.step(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Waiting(inner) => {
                let step = inner.throw(py, error);
                self.stepped(py, inner, step)
            }
            // Nobody has seen the item.
            Stage::New(..) | Stage::Done => {
                self.delivery.get().note(py, None);
                Err(error)
            }
        }
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.stage = Stage::Done;
    }
}

impl Traverse for Delivering {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(self.delivery.as_any())?;
        match &self.stage {
            Stage::New(sink, item) => {
                visit(sink)?;
                visit(item)
            }
            Stage::Waiting(inner) => visit(inner.object()),
            Stage::Done => Ok(()),
        }
    }
}
