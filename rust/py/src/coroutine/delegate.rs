//! Driving a foreign awaitable from a native one, as `yield from` does.
//! The drivers in `pull` and `push`, async sources and the task pool use it as `Inner`.
//!
//! This is `await` without a coroutine: objects that the inner awaitable yields are passed to the task unchanged, errors are thrown
//! into it, and a `StopIteration` of its `throw()` is its result.

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use super::Step;
use crate::object::gc::traverse;
use crate::pull::control;
use crate::runtime::stack_limit::{self, Level};

/// An awaitable between its first step and its last.
#[derive(Debug)]
pub(crate) struct Inner(Py<PyAny>);

/// Return whether the type of an object supports `await`. A stream does not: its slot only raises an error.
#[inline]
pub(crate) fn is_awaitable(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object has a live type, and the async methods of a type do not move.
    unsafe {
        let methods = (*ffi::Py_TYPE(object.as_ptr())).tp_as_async;
        !methods.is_null()
            && (*methods).am_await.is_some_and(|am_await| {
                am_await as usize != control::refuse_await as *const () as usize
            })
    }
}

/// Return the awaitable of `anext(iterator)`, through the slot, as `async for` does.
#[inline]
pub(crate) fn next<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a live object has a live type, and the slot is called as CPython calls it; it returns an owned reference or null
    // with an exception.
    unsafe {
        let methods = (*ffi::Py_TYPE(iterator.as_ptr())).tp_as_async;
        if !methods.is_null()
            && let Some(am_anext) = (*methods).am_anext
        {
            return Bound::from_owned_ptr_or_err(iterator.py(), am_anext(iterator.as_ptr()));
        }
    }
    iterator.call_method0(intern!(iterator.py(), "__anext__"))
}

impl Inner {
    /// Return whether an object is the coroutine of an `async def`.
    #[inline]
    pub(crate) fn is_coroutine(object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: reading the type object of a live object.
        let kind = unsafe { ffi::Py_TYPE(object.as_ptr()) };
        std::ptr::eq(kind, &raw const ffi::PyCoro_Type)
    }

    /// Make the iterator that `await object` drives: the object itself if it is a coroutine, otherwise the result of
    /// its `__await__`.
    ///
    /// # Errors
    ///
    /// `RecursionError`: too many awaitables are nested. CPython does not count native ones.
    #[inline]
    pub(crate) fn of(object: Bound<'_, PyAny>) -> PyResult<Self> {
        if let Err(error) = stack_limit::check() {
            // Otherwise the object would warn that it was never awaited.
            let _ = object.call_method0(intern!(object.py(), "close"));
            return Err(error);
        }
        // The usual case; a coroutine is its own iterator.
        if Self::is_coroutine(&object) {
            return Ok(Self(object.unbind()));
        }
        Self::of_other(&object)
    }

    #[cold]
    fn of_other(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        // SAFETY: the slot is called as CPython calls it, with a live object; it returns an owned
        // reference or null with an exception.
        let iterator = unsafe {
            let methods = (*ffi::Py_TYPE(object.as_ptr())).tp_as_async;
            let am_await = if methods.is_null() {
                None
            } else {
                (*methods).am_await
            };
            let Some(am_await) = am_await else {
                return Err(PyTypeError::new_err(format!(
                    "object {} can't be used in 'await' expression",
                    object.get_type().name()?
                )));
            };
            Bound::from_owned_ptr_or_err(py, am_await(object.as_ptr()))?
        };
        // SAFETY: a live object.
        if unsafe { ffi::PyIter_Check(iterator.as_ptr()) } == 0 {
            return Err(PyTypeError::new_err(format!(
                "__await__() returned non-iterator of type '{}'",
                iterator.get_type().name()?
            )));
        }
        Ok(Self(iterator.unbind()))
    }

    /// Run one step with a value sent in.
    #[inline]
    pub(crate) fn send<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let _level = Level::enter();
        send(self.0.bind(value.py()), value)
    }

    /// Run one step with an error thrown in. An iterator without `throw` is left unchanged and the error is returned,
    /// as with `yield from`.
    pub(crate) fn throw<'py>(&self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let inner = self.0.bind(py);
        let Ok(throw) = inner.getattr(intern!(py, "throw")) else {
            return Err(error);
        };
        match throw.call1((error.into_value(py),)) {
            Ok(yielded) => Ok(Step::Yield(yielded)),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                Ok(Step::Return(error.value(py).getattr(intern!(py, "value"))?))
            }
            Err(error) => Err(error),
        }
    }

    /// Return the driven iterator.
    pub(crate) fn object(&self) -> &Py<PyAny> {
        &self.0
    }
}

traverse!(Inner { 0 });

/// `PyIter_Send`: one step of any iterator, generator or coroutine.
#[inline]
pub(crate) fn send<'py>(
    iterator: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Step<'py>> {
    let py = iterator.py();
    let mut result = std::ptr::null_mut();
    // SAFETY: two live objects and a pointer to the result, which is an owned reference unless the step failed.
    unsafe {
        match ffi::PyIter_Send(iterator.as_ptr(), value.as_ptr(), &raw mut result) {
            ffi::PySendResult::PYGEN_RETURN => Ok(Step::Return(Bound::from_owned_ptr(py, result))),
            ffi::PySendResult::PYGEN_NEXT => Ok(Step::Yield(Bound::from_owned_ptr(py, result))),
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::take(py)
                .unwrap_or_else(|| PyRuntimeError::new_err("a step failed without an exception"))),
        }
    }
}
