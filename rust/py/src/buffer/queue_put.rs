//! `Storing`: what a `put()` wants.

use std::ffi::CStr;
use std::sync::Arc;

use headrace_core::buffer::{Put, PutError};
use pyo3::prelude::*;

use super::queue::{Core, refusal};
use super::queue_ops::{Errand, Refused};
use crate::coroutine::Class;
use crate::object::gc::{Traverse, VisitError, Visitor, traverse};

/// A place for this item.
#[derive(Debug)]
pub(super) struct Storing(pub(super) Py<PyAny>);

static STORING: Class = Class::new();

impl Errand for Storing {
    const NAME: &'static CStr = c"headrace._core.QueuePut";

    const NEGLECTED: Option<&'static CStr> = Some(
        c"put() was never awaited, and its item is not in the queue: write `await queue.put(item)`",
    );

    type Future = Put<Py<PyAny>>;

    fn class() -> &'static Class {
        &STORING
    }

    #[inline]
    fn attempt<'py>(
        self,
        py: Python<'py>,
        core: &Arc<Core>,
    ) -> Result<Bound<'py, PyAny>, Refused<Self::Future>> {
        match core.try_put(self.0) {
            Ok(()) => Ok(py.None().into_bound(py)),
            Err(PutError::Full(item)) => Err(Refused::Waits(core.put(item))),
            Err(refused) => Err(Refused::Failed(refusal(py, refused))),
        }
    }

    fn conclude(
        py: Python<'_>,
        output: Result<(), PutError<Py<PyAny>>>,
    ) -> PyResult<Bound<'_, PyAny>> {
        match output {
            Ok(()) => Ok(py.None().into_bound(py)),
            Err(refused) => Err(refusal(py, refused)),
        }
    }
}

traverse!(Storing { 0 });

impl Traverse for Put<Py<PyAny>> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.item().map_or(Ok(()), visit)
    }
}
