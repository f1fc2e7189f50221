//! `Join`: one `join()`.

use std::ffi::CStr;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use headrace_core::buffer as core;
use pyo3::prelude::*;

use super::queue::Core;
use crate::awaitable::ready::Operation;
use crate::awaitable::{Class, Seen, Stopped};
use crate::errors;
use crate::fork::Home;

/// One `join()`.
#[derive(Debug)]
pub(super) struct Join {
    home: Home,
    core: Arc<Core>,
    future: core::Join<Py<PyAny>>,
}

static JOIN: Class = Class::new();

impl Join {
    pub(super) fn new(home: Home, core: &Arc<Core>) -> Self {
        Self {
            home,
            core: Arc::clone(core),
            future: core.join(),
        }
    }
}

impl Operation for Join {
    const NAME: &'static CStr = c"headrace._core.QueueJoin";

    fn class() -> &'static Class {
        &JOIN
    }

    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>> {
        if let Err(error) = self.home.check(py, "queue") {
            return Poll::Ready(Err(error));
        }
        if self.core.is_broken() {
            return Poll::Ready(Err(errors::broken(py, "queue")));
        }
        Pin::new(&mut self.future)
            .poll(context)
            .map(|()| Ok(py.None().into_bound(py)))
    }

    fn traverse(&self, _see: Seen<'_>) -> Result<(), Stopped> {
        Ok(())
    }
}
