//! `Taking`: what a `get()` wants.

use std::ffi::CStr;
use std::sync::Arc;

use headrace_core::buffer::{Ended, Get, TryGetError};
use pyo3::prelude::*;

use super::queue::{Core, shut_down};
use super::queue_ops::{Errand, Refused};
use crate::coroutine::Class;
use crate::object::gc::traverse;

/// The next item.
#[derive(Debug)]
pub(super) struct Taking;

static TAKING: Class = Class::new();

impl Errand for Taking {
    const NAME: &'static CStr = c"headrace._core.QueueGet";

    type Future = Get<Py<PyAny>>;

    fn class() -> &'static Class {
        &TAKING
    }

    #[inline]
    fn attempt<'py>(
        self,
        py: Python<'py>,
        core: &Arc<Core>,
    ) -> Result<Bound<'py, PyAny>, Refused<Self::Future>> {
        match core.try_get() {
            Ok(item) => Ok(item.into_bound(py)),
            Err(TryGetError::Empty) => Err(Refused::Waits(core.get())),
            Err(TryGetError::Ended) => Err(Refused::Failed(shut_down(py))),
        }
    }

    fn conclude(py: Python<'_>, output: Result<Py<PyAny>, Ended>) -> PyResult<Bound<'_, PyAny>> {
        match output {
            Ok(item) => Ok(item.into_bound(py)),
            Err(Ended) => Err(shut_down(py)),
        }
    }
}

traverse!(Taking {});
traverse!(Get<Py<PyAny>> {});
