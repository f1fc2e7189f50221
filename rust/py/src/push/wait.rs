//! The waits of a push.
//!
//! A [`PendingWait`] has not started: nothing was awaited, so another task can start it, with its
//! own context and timeouts. A [`SuspendPoint`] has started.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::buffer::Putting;
use crate::coroutine::Inner;
use crate::object::gc::{Traverse, VisitError, Visitor};
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
    Space(Box<Putting>),
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

impl Traverse for PendingWait {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match self {
            Self::Yield(item) => item.iter().try_for_each(visit),
            Self::Callable {
                awaitable, item, ..
            }
            | Self::Callback {
                awaitable, item, ..
            }
            | Self::Selector { awaitable, item } => {
                visit(awaitable)?;
                visit(item)
            }
            Self::Space(putting) => putting.traverse(visit),
            Self::Sink { awaitable, missing } => {
                visit(awaitable)?;
                traverse_missing(missing.as_ref(), visit)
            }
            Self::Source(source, _) => visit(source.as_any()),
        }
    }
}

/// An item, and the numbers of the fan's branches that still lack it.
pub(super) type Missing = (Py<PyAny>, Py<PyList>);

/// The point where a push is suspended. The variants are those of [`PendingWait`].
#[derive(Debug)]
pub(super) enum SuspendPoint {
    Yield(Option<Py<PyAny>>),
    Callable {
        inner: Inner,
        item: Py<PyAny>,
        number: usize,
    },
    Space(Box<Putting>),
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

impl Traverse for SuspendPoint {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match self {
            Self::Yield(item) => item.iter().try_for_each(visit),
            Self::Space(putting) => putting.traverse(visit),
            Self::Sink { inner, missing } => {
                visit(inner.object())?;
                traverse_missing(missing.as_ref(), visit)
            }
            Self::Callable { inner, item, .. }
            | Self::Callback { inner, item, .. }
            | Self::Selector { inner, item } => {
                visit(inner.object())?;
                visit(item)
            }
            Self::Source { wait, source, .. } => {
                visit(source.as_any())?;
                wait.traverse(visit)
            }
        }
    }
}

fn traverse_missing(missing: Option<&Missing>, visit: Visitor<'_>) -> Result<(), VisitError> {
    let Some((item, numbers)) = missing else {
        return Ok(());
    };
    visit(item)?;
    visit(numbers.as_any())
}
