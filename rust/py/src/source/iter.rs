//! The source over a sync iterable. `headrace/pull/source.py` makes it.

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use pyo3::{PyTraverseError, PyVisit};

use super::SourcePoll;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;

/// Takes items from an iterator, which is made at the first pull.
#[pyclass(frozen, name = "IterSource", module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyIterSource {
    iterable: Py<PyAny>,
    state: GilCell<State>,
}

#[derive(Debug)]
enum State {
    Fresh,
    Running(Py<PyIterator>),
    Ended,
}

traverse!(
    enum State {
        Fresh,
        Running(iterator),
        Ended,
    }
);
traverse!(PyIterSource { iterable, state });

#[pymethods]
impl PyIterSource {
    #[new]
    fn new(iterable: &Bound<'_, PyAny>) -> Self {
        Self {
            iterable: iterable.clone().unbind(),
            state: GilCell::new(State::Fresh),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.state.set(py, State::Ended);
    }
}

impl PyIterSource {
    /// Make a source over an iterable.
    pub(crate) fn over(iterable: &Bound<'_, PyAny>) -> Self {
        Self::new(iterable)
    }

    #[inline]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let iterator = match &*self.state.borrow(py) {
            State::Running(iterator) => Some(iterator.bind(py).clone()),
            State::Fresh | State::Ended => None,
        };
        Self::step(&iterator?)
    }

    /// Take one item. Returns `None`, possibly with an exception set, if the iterator has no more.
    #[inline]
    fn step<'py>(iterator: &Bound<'py, PyIterator>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: an iterator has this slot, which is called as CPython calls it: it returns an
        // owned item, or null.
        unsafe {
            let tp_iternext = (*ffi::Py_TYPE(iterator.as_ptr())).tp_iternext?;
            Bound::from_owned_ptr_or_opt(iterator.py(), tp_iternext(iterator.as_ptr()))
        }
    }

    /// Handle a missing item: start the iterator, end the source or return the error that the iterator raised.
    pub(crate) fn poll_next<'py>(&self, py: Python<'py>) -> PyResult<SourcePoll<'py>> {
        let fresh = matches!(*self.state.borrow(py), State::Fresh);
        if fresh {
            let iterator = self.iterable.bind(py).try_iter()?;
            self.state
                .set(py, State::Running(iterator.clone().unbind()));
            if let Some(item) = Self::step(&iterator) {
                return Ok(SourcePoll::Item(item));
            }
        }
        match PyErr::take(py) {
            // An iterator that raised is kept: a class may continue after an error, and a generator ends by itself.
            Some(error) if !error.is_instance_of::<PyStopIteration>(py) => Err(error),
            _ => {
                self.state.set(py, State::Ended);
                Ok(SourcePoll::End)
            }
        }
    }

    pub(crate) fn restart(&self, py: Python<'_>) -> PyResult<()> {
        let iterable = self.iterable.bind(py);
        // SAFETY: a live object.
        if unsafe { ffi::PyIter_Check(iterable.as_ptr()) } != 0 {
            return Err(PyRuntimeError::new_err(format!(
                "cannot restart: the source {} is an iterator, which runs once; give a list, a range or any other iterable that can be iterated again",
                crate::errors::describe(iterable)
            )));
        }
        self.state.set(py, State::Fresh);
        Ok(())
    }

    /// Return whether the iterator was made.
    pub(crate) fn has_begun(&self, py: Python<'_>) -> bool {
        !matches!(*self.state.borrow(py), State::Fresh)
    }

    /// End the source. A generator is closed, which runs its `finally` immediately.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        let running = match self.state.replace(py, State::Ended) {
            State::Running(iterator) => iterator.into_any().into_bound(py),
            State::Fresh => self.iterable.bind(py).clone(),
            State::Ended => return Ok(()),
        };
        // SAFETY: reading the type of a live object.
        let is_generator =
            unsafe { std::ptr::eq(ffi::Py_TYPE(running.as_ptr()), &raw const ffi::PyGen_Type) };
        if is_generator {
            running.call_method0(intern!(py, "close"))?;
        }
        Ok(())
    }
}
