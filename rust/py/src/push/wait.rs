//! Where a push waits.
//!
//! A [`Halt`] is a wait that has not begun: nothing was awaited, so that it may begin in another
//! task, with that task's own context and timeouts. A [`Place`] is one that has.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::buffer::Putting;
use crate::coroutine::Inner;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::source::{AnySource, Wait};

/// What a push would have to wait for.
#[derive(Debug)]
pub(super) enum Halt {
    /// A turn of the loop; before the item that was pushed enters the first stage, if this is that.
    Rest(Option<Py<PyAny>>),
    /// What the callable of stage `number` returned for `item`.
    Call {
        awaitable: Py<PyAny>,
        item: Py<PyAny>,
        number: usize,
    },
    /// Room for this item in the buffer at the end.
    Room(Box<Putting>),
    /// A sink that is not run in place; and, if that is a fan, the item and which of the branches
    /// still lack it.
    Sink {
        awaitable: Py<PyAny>,
        missing: Option<Missing>,
    },
    /// What a callback at the end returned for `item`; the next one has this number.
    Callback {
        awaitable: Py<PyAny>,
        functions: Arc<[Py<PyAny>]>,
        item: Py<PyAny>,
        next: usize,
    },
    /// What the selector of the fan at the end returned for `item`.
    Select {
        awaitable: Py<PyAny>,
        item: Py<PyAny>,
    },
    /// The next item of what the stage before this one hands on.
    Draw(AnySource, usize),
}

impl Halt {
    pub(super) fn sink(awaitable: Bound<'_, PyAny>) -> Self {
        Self::Sink {
            awaitable: awaitable.unbind(),
            missing: None,
        }
    }

    /// Gives it up. A coroutine that nobody will await is closed, so that it does not complain.
    pub(super) fn discard(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Call { awaitable, .. }
            | Self::Sink { awaitable, .. }
            | Self::Callback { awaitable, .. }
            | Self::Select { awaitable, .. } => {
                if let Some(close) = awaitable.bind(py).getattr_opt(intern!(py, "close"))? {
                    close.call0()?;
                }
                Ok(())
            }
            Self::Rest(_) | Self::Room(_) | Self::Draw(..) => Ok(()),
        }
    }
}

impl Traverse for Halt {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match self {
            Self::Rest(item) => item.iter().try_for_each(visit),
            Self::Call {
                awaitable, item, ..
            }
            | Self::Callback {
                awaitable, item, ..
            }
            | Self::Select { awaitable, item } => {
                visit(awaitable)?;
                visit(item)
            }
            Self::Room(putting) => putting.traverse(visit),
            Self::Sink { awaitable, missing } => {
                visit(awaitable)?;
                traverse_missing(missing.as_ref(), visit)
            }
            Self::Draw(feed, _) => visit(feed.as_any()),
        }
    }
}

/// An item, and the branches of the fan at the end that still lack it.
pub(super) type Missing = (Py<PyAny>, Py<PyList>);

/// Where a push is suspended.
#[derive(Debug)]
pub(super) enum Place {
    Rest(Option<Py<PyAny>>),
    Call {
        inner: Inner,
        item: Py<PyAny>,
        number: usize,
    },
    Room(Box<Putting>),
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
    Select {
        inner: Inner,
        item: Py<PyAny>,
    },
    Draw {
        wait: Wait,
        feed: AnySource,
        entry: usize,
    },
}

impl Place {
    /// Whether code of somebody else's is under way here, which may catch what is thrown in, or raise
    /// by itself.
    pub(super) fn runs_others(&self) -> bool {
        !matches!(self, Self::Rest(_) | Self::Room(_))
    }
}

impl Traverse for Place {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match self {
            Self::Rest(item) => item.iter().try_for_each(visit),
            Self::Room(putting) => putting.traverse(visit),
            Self::Sink { inner, missing } => {
                visit(inner.object())?;
                traverse_missing(missing.as_ref(), visit)
            }
            Self::Call { inner, item, .. }
            | Self::Callback { inner, item, .. }
            | Self::Select { inner, item } => {
                visit(inner.object())?;
                visit(item)
            }
            Self::Draw { wait, feed, .. } => {
                visit(feed.as_any())?;
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
