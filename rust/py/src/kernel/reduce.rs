//! `accumulate`: the running result of a function of two, one out for each item in.
//! `headrace/pull/transform.py`, `headrace/push/transform.py` and the terminal `reduce` use it.

use pyo3::prelude::*;

use super::{Callable, Kernel, Output, live_kernel};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;

/// Emits `accumulator = reducer(accumulator, item)`, awaited if it is awaitable.
#[pyclass(name = "ReduceKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyReduceKernel {
    reducer: Callable,
    /// The initial value; `None` if the first item is the initial value.
    initial: Option<Py<PyAny>>,
    accumulator: GilCell<Option<Py<PyAny>>>,
}

live_kernel! {
    impl PyReduceKernel {
        live { reducer: set_reducer }

        #[new]
        #[pyo3(signature = (reducer, *initial))]
        pub(crate) fn new(
            reducer: &Bound<'_, PyAny>,
            initial: &Bound<'_, pyo3::types::PyTuple>,
        ) -> PyResult<Self> {
            let py = reducer.py();
            let initial = initial.iter().next().map(Bound::unbind);
            Ok(Self {
                reducer: Callable::new("reducer", reducer)?,
                accumulator: GilCell::new(initial.as_ref().map(|initial| initial.clone_ref(py))),
                initial,
            })
        }

        /// Return the result so far; `None` before the first item if there is no initial value.
        #[getter]
        pub(crate) fn accumulator<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
            self.accumulator.get(py)
        }

        #[setter]
        fn set_accumulator(&self, value: &Bound<'_, PyAny>) {
            self.accumulator.set(value.py(), Some(value.clone().unbind()));
        }
    }
}

impl Kernel for PyReduceKernel {
    const PARAMETER: &'static str = "reducer";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let py = item.py();
        let Some(accumulator) = self.accumulator(py) else {
            self.accumulator.set(py, Some(item.clone().unbind()));
            return Ok(Output::Emit(item.clone()));
        };
        self.resume_or_await(item, self.reducer.call2(&accumulator, item)?)
    }

    fn resume<'py>(
        &self,
        _item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        self.accumulator
            .set(result.py(), Some(result.clone().unbind()));
        Ok(Output::Emit(result))
    }

    fn restart(&self, py: Python<'_>) {
        self.accumulator.set(
            py,
            self.initial.as_ref().map(|initial| initial.clone_ref(py)),
        );
    }
}

traverse!(PyReduceKernel {
    reducer,
    initial,
    accumulator
});
