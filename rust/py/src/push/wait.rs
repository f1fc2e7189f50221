//! The waits of a push.
//!
//! A [`PendingWait`] has not started: nothing was awaited, so another task can start it, with its
//! own context and timeouts. A [`SuspendPoint`] has started.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::buffer::PendingPut;
use crate::coroutine::Inner;
use crate::object::gc::traverse;
use crate::source::{AnySource, Wait};

/// A wait that a push needs, and has not started.
#[derive(Debug)]
pub(super) enum PendingWait {
    /// Yield to the event loop; with an item, before that item enters the first stage.
    Yield(Option<Py<PyAny>>),
    /// Await the object that the callable of stage `number` returned for `item`.
    Callable {
        awaitable: Py<PyAny>,
        item: Py<PyAny>,
        number: usize,
    },
    /// Wait for space in the buffer at the end.
    Space(Box<PendingPut>),
    /// Await a push into a sink that is not fused. For a fan, `missing` names the branches that
    /// still lack the item.
    Sink {
        awaitable: Py<PyAny>,
        missing: Option<Missing>,
    },
    /// Await the object that a callback at the end returned for `item`, then call callback `next`.
    Callback {
        awaitable: Py<PyAny>,
        functions: Arc<[Py<PyAny>]>,
        item: Py<PyAny>,
        next: usize,
    },
    /// Await the object that the fan's selector returned for `item`.
    Selector {
        awaitable: Py<PyAny>,
        item: Py<PyAny>,
    },
    /// Wait for the next item of this inner source, which enters stage `.1`.
    Source(AnySource, usize),
}

impl PendingWait {
    pub(super) fn sink(awaitable: Bound<'_, PyAny>) -> Self {
        Self::Sink {
            awaitable: awaitable.unbind(),
            missing: None,
        }
    }

    /// Give up the wait. A coroutine is closed, which suppresses its "never awaited" warning.
    pub(super) fn discard(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Callable { awaitable, .. }
            | Self::Sink { awaitable, .. }
            | Self::Callback { awaitable, .. }
            | Self::Selector { awaitable, .. } => {
                if let Some(close) = awaitable.bind(py).getattr_opt(intern!(py, "close"))? {
                    close.call0()?;
                }
                Ok(())
            }
            Self::Yield(_) | Self::Space(_) | Self::Source(..) => Ok(()),
        }
    }
}

traverse!(enum PendingWait {
    Yield(item),
    Callable { awaitable, item },
    Space(putting),
    Sink { awaitable, missing },
    Callback { awaitable, item },
    Selector { awaitable, item },
    Source(source, _),
});

/// An item, and the numbers of the fan's branches that still lack it.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) item: Py<PyAny>,
    pub(super) branches: Py<PyList>,
}

traverse!(Missing { item, branches });

impl Missing {
    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            item: self.item.clone_ref(py),
            branches: self.branches.clone_ref(py),
        }
    }
}

/// The point where a push is suspended. The variants are those of [`PendingWait`].
#[derive(Debug)]
pub(super) enum SuspendPoint {
    Yield(Option<Py<PyAny>>),
    Callable {
        inner: Inner,
        item: Py<PyAny>,
        number: usize,
    },
    Space(Box<PendingPut>),
    Sink {
        inner: Inner,
        missing: Option<Missing>,
    },
    Callback {
        inner: Inner,
        functions: Arc<[Py<PyAny>]>,
        item: Py<PyAny>,
        next: usize,
    },
    Selector {
        inner: Inner,
        item: Py<PyAny>,
    },
    Source {
        wait: Wait,
        source: AnySource,
        entry: usize,
    },
}

impl SuspendPoint {
    /// Whether foreign code is suspended here. It may catch a thrown error, or raise its own.
    pub(super) fn runs_foreign_code(&self) -> bool {
        !matches!(self, Self::Yield(_) | Self::Space(_))
    }
}

traverse!(enum SuspendPoint {
    Yield(item),
    Callable { inner, item },
    Space(putting),
    Sink { inner, missing },
    Callback { inner, item },
    Selector { inner, item },
    Source { wait, source },
});
