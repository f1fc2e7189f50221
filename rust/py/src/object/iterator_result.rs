//! `IteratorResult`: the result of one step of a stream. `Pull` and `Push` return it.

use pyo3::basic::CompareOp;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyIterator, PyTuple, PyType};
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit};

/// The outcome of one step: a value, or the end.
#[pyclass(frozen, generic, module = "headrace", name = "IteratorResult")]
#[derive(Debug)]
pub(crate) struct PyIteratorResult {
    value: Py<PyAny>,
    done: bool,
}

#[pymethods]
impl PyIteratorResult {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    const MATCH_ARGS: (&'static str, &'static str) = ("value", "done");

    #[new]
    #[pyo3(signature = (value, done))]
    fn new(value: Py<PyAny>, done: bool) -> Self {
        Self { value, done }
    }

    /// Return the item; at the end, the value that ended the stream.
    #[getter]
    fn value(&self, py: Python<'_>) -> Py<PyAny> {
        self.value.clone_ref(py)
    }

    /// Return whether this is the end.
    #[getter]
    fn done(&self) -> bool {
        self.done
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.to_tuple(py)?.try_iter()
    }

    fn __richcmp__(
        &self,
        py: Python<'_>,
        other: &Bound<'_, PyAny>,
        op: CompareOp,
    ) -> PyResult<Py<PyAny>> {
        let Ok(other) = other.cast::<Self>() else {
            return Ok(py.NotImplemented());
        };
        let other = other.get();
        let equal = self.done == other.done && self.value.bind(py).eq(&other.value)?;
        match op {
            CompareOp::Eq => equal.into_py_any(py),
            CompareOp::Ne => (!equal).into_py_any(py),
            _ => Ok(py.NotImplemented()),
        }
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.to_tuple(py)?.hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let done = if self.done { "True" } else { "False" };
        Ok(format!(
            "IteratorResult(value={}, done={done})",
            self.value.bind(py).repr()?
        ))
    }

    /// For `copy` and `pickle`.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (Bound<'py, PyAny>, bool)) {
        let this = slf.get();
        let value = this.value.bind(slf.py()).clone();
        (slf.get_type(), (value, this.done))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.value)
    }
}

impl PyIteratorResult {
    /// `(value, done)`
    fn to_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        (&self.value, self.done).into_pyobject(py)
    }

    fn make(py: Python<'_>, value: Py<PyAny>, done: bool) -> PyResult<Bound<'_, PyAny>> {
        Bound::new(py, Self { value, done }).map(Bound::into_any)
    }

    /// Return whether this is the end.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Make the result with an item.
    pub(crate) fn item(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
        Self::make(value.py(), value.unbind(), false)
    }

    /// Return the result of an accepted push: one shared object, which never changes.
    #[inline]
    pub(crate) fn accepted(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        static ACCEPTED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let accepted =
            ACCEPTED.get_or_try_init(py, || Self::make(py, py.None(), false).map(Bound::unbind))?;
        Ok(accepted.bind(py).clone())
    }

    /// Make the end.
    pub(crate) fn end(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Self::make(py, py.None(), true)
    }
}
