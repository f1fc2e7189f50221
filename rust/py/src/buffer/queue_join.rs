//! `Join`: one `join()`.

use std::ffi::CStr;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use headrace_core::buffer as core;
use pyo3::prelude::*;

use super::queue::Queue;
use crate::coroutine::Class;
use crate::coroutine::operation::Operation;
use crate::object::gc::traverse;

/// One `join()`.
#[derive(Debug)]
pub(super) struct Join {
    /// Also for the collector, to which the items in the core are the queue's.
    queue: Py<Queue>,
    future: core::Join<Py<PyAny>>,
}

static JOIN: Class = Class::new();

impl Join {
    pub(super) fn new(queue: Bound<'_, Queue>) -> PyResult<Self> {
        let future = queue.get().core(queue.py())?.join();
        Ok(Self {
            queue: queue.unbind(),
            future,
        })
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
        if let Err(error) = self.queue.get().core(py) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.future)
            .poll(context)
            .map(|()| Ok(py.None().into_bound(py)))
    }
}

traverse!(Join { queue });
