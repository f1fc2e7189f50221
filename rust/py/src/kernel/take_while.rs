//! `take_while` and `skip_while`: a stream parts at the first item that the predicate is false for.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Kernel, Output};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::RaisedError;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;

/// Asks `predicate(item)`, awaited if it is awaitable, until it is false, and no more. What comes before
/// is emitted, and nothing after (`takes`); or the other way round, with the item that it was false for.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct WhileKernel {
    predicate: Callable,
    takes: bool,
    /// It was false once.
    turned: GilCell<bool>,
}

#[pymethods]
impl WhileKernel {
    #[new]
    fn new(predicate: &Bound<'_, PyAny>, takes: bool) -> PyResult<Self> {
        Ok(Self {
            predicate: Callable::new("predicate", predicate)?,
            takes,
            turned: GilCell::new(false),
        })
    }

    #[getter]
    fn predicate<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.predicate.get(py)
    }

    #[setter]
    fn set_predicate(&self, predicate: &Bound<'_, PyAny>) -> PyResult<()> {
        self.predicate.set(predicate)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.predicate.clear(py);
    }
}

impl WhileKernel {
    /// What becomes of an item on either side of the turn.
    fn flow<'py>(&self, item: &Bound<'py, PyAny>, turned: bool) -> Output<'py> {
        match (self.takes, turned) {
            (true, false) | (false, true) => Output::Emit(item.clone()),
            (true, true) => Output::Stop,
            (false, false) => Output::Skip,
        }
    }
}

impl Kernel for WhileKernel {
    const PARAMETER: &'static str = "predicate";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let py = item.py();
        if *self.turned.borrow(py) {
            return Ok(self.flow(item, true));
        }
        let result = self.predicate.call(item)?;
        if is_awaitable(&result) {
            return Ok(Output::Await(result));
        }
        RaisedError::set_from(py, self.resume(item, result))
    }

    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        let turned = !result.is_truthy()?;
        if turned {
            *self.turned.borrow(item.py()) = true;
        }
        Ok(self.flow(item, turned))
    }

    fn is_done(&self, py: Python<'_>) -> bool {
        self.takes && *self.turned.borrow(py)
    }

    fn restart(&self, py: Python<'_>) {
        *self.turned.borrow(py) = false;
    }
}

traverse!(WhileKernel { predicate });
