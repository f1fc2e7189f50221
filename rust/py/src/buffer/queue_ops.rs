//! The awaitables of a queue: one `get()`, `put()` or `join()`. They differ in their [`QueueOp`]. `PyQueue` makes them.

use std::ffi::CStr;
use std::future::Future;
use std::sync::Arc;

use headrace_core::buffer::{Ended, Get, Join, Put, PutError};
use pyo3::prelude::*;

use super::ops::{self, Attempt, Core};
use super::queue::{self, PyQueue};
use crate::coroutine::pending::Placed;
use crate::coroutine::{Class, Coroutine, Native, Pending, Step, own_class};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor, traverse};

pub(super) fn register(py: Python<'_>) -> PyResult<()> {
    Native::<QueueAwaitable<GetOp>>::register(py)?;
    Native::<QueueAwaitable<PutOp>>::register(py)?;
    Native::<QueueAwaitable<JoinOp>>::register(py)
}

/// An operation on a queue that may have to wait.
pub(super) trait QueueOp: Traverse + Sized + Send + 'static {
    /// The full name of the Python type.
    const NAME: &'static CStr;

    /// The warning if the operation was never awaited.
    const NEVER_AWAITED: Option<&'static CStr> = None;

    /// The core's future if the operation has to wait.
    type Future: Placed + Traverse + Send;

    fn class() -> &'static Class;

    /// Perform the operation now, or return the future to wait for.
    fn attempt(self, core: &Arc<Core>) -> Attempt<Self::Future>;

    /// Convert the output for Python.
    fn conclude(
        py: Python<'_>,
        output: <Self::Future as Future>::Output,
    ) -> PyResult<Bound<'_, PyAny>>;
}

/// One operation, as Python awaits it.
#[derive(Debug)]
pub(super) struct QueueAwaitable<O: QueueOp> {
    /// `None` while a step runs, which then holds it, and after the end.
    queue: Option<Py<PyQueue>>,
    /// `None` from the first step on.
    op: Option<O>,
    pending: Option<Box<Pending<O::Future>>>,
}

impl<O: QueueOp> QueueAwaitable<O> {
    /// Create an awaitable that has not started.
    #[inline]
    pub(super) fn make(queue: Bound<'_, PyQueue>, op: O) -> PyResult<Bound<'_, PyAny>> {
        let py = queue.py();
        Native::alloc(py, || Self {
            queue: Some(queue.unbind()),
            op: Some(op),
            pending: None,
        })
    }

    #[cold]
    fn wait<'py>(
        &mut self,
        queue: Bound<'py, PyQueue>,
        mut pending: Box<Pending<O::Future>>,
    ) -> PyResult<Step<'py>> {
        let py = queue.py();
        queue.get().core(py)?;
        match pending.step(py)? {
            Ok(output) => O::conclude(py, output).map(Step::Return),
            Err(object) => {
                self.pending = Some(pending);
                self.queue = Some(queue.unbind());
                Ok(Step::Yield(object))
            }
        }
    }
}

impl<O: QueueOp> Coroutine for QueueAwaitable<O> {
    const NAME: &'static CStr = O::NAME;

    fn never_awaited_warning(&self) -> Option<&'static CStr> {
        self.op.as_ref().and(O::NEVER_AWAITED)
    }

    fn class() -> &'static Class {
        O::class()
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        let Some(queue) = self.queue.take() else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let queue = queue.into_bound(py);
        let pending = match self.op.take() {
            None => self.pending.take().expect("a started awaitable is pending"),
            Some(op) => match op.attempt(queue.get().usable(py)?) {
                Ok(output) => {
                    return RaisedError::set_from(py, O::conclude(py, output).map(Step::Return));
                }
                Err(future) => Box::new(Pending::new(future)),
            },
        };
        RaisedError::set_from(py, self.wait(queue, pending))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.queue.is_none() && self.op.is_none() && self.pending.is_none()
    }

    fn abandon(&mut self, _py: Python<'_>) {
        // Dropping the future gives up its queue position. The item of a get is still in the queue; the item of a put never
        // left the caller.
        self.pending = None;
        self.op = None;
        self.queue = None;
    }
}

traverse!([O: QueueOp] QueueAwaitable<O> { queue, op, pending });

/// `get()`.
#[derive(Debug)]
pub(super) struct GetOp;

impl QueueOp for GetOp {
    const NAME: &'static CStr = c"headrace._core.QueueGet";

    type Future = Get<Py<PyAny>>;

    own_class!();

    #[inline]
    fn attempt(self, core: &Arc<Core>) -> Attempt<Self::Future> {
        ops::get(core)
    }

    #[inline]
    fn conclude(py: Python<'_>, output: Result<Py<PyAny>, Ended>) -> PyResult<Bound<'_, PyAny>> {
        queue::received(py, output)
    }
}

traverse!(GetOp {});
traverse!(Get<Py<PyAny>> {});

/// `put()` of this item.
#[derive(Debug)]
pub(super) struct PutOp(pub(super) Py<PyAny>);

impl QueueOp for PutOp {
    const NAME: &'static CStr = c"headrace._core.QueuePut";

    const NEVER_AWAITED: Option<&'static CStr> = Some(
        c"put() was never awaited, and its item is not in the queue: write `await queue.put(item)`",
    );

    type Future = Put<Py<PyAny>>;

    own_class!();

    #[inline]
    fn attempt(self, core: &Arc<Core>) -> Attempt<Self::Future> {
        ops::put(core, self.0, true)
    }

    #[inline]
    fn conclude(
        py: Python<'_>,
        output: Result<(), PutError<Py<PyAny>>>,
    ) -> PyResult<Bound<'_, PyAny>> {
        queue::stored(py, output).map(|()| py.None().into_bound(py))
    }
}

traverse!(PutOp { 0 });

impl Traverse for Put<Py<PyAny>> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.item().map_or(Ok(()), visit)
    }
}

/// `join()`.
#[derive(Debug)]
pub(super) struct JoinOp;

impl QueueOp for JoinOp {
    const NAME: &'static CStr = c"headrace._core.QueueJoin";

    type Future = Join<Py<PyAny>>;

    own_class!();

    fn attempt(self, core: &Arc<Core>) -> Attempt<Self::Future> {
        if core.unfinished() == 0 {
            return Ok(());
        }
        Err(core.join())
    }

    fn conclude(py: Python<'_>, (): ()) -> PyResult<Bound<'_, PyAny>> {
        Ok(py.None().into_bound(py))
    }
}

traverse!(JoinOp {});
traverse!(Join<Py<PyAny>> {});
