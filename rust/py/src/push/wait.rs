//! The waits of a push. `deliver.rs` and `fan.rs` return them; `resume.rs` starts them.
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
    /// Await an object.
    Await(Py<PyAny>, Awaited),
    /// Wait for space in the buffer at the end.
    Space(Box<PendingPut>),
    /// Wait for the next item of this inner source, which enters stage `.1`.
    Source(AnySource, usize),
}

/// The origin of an awaited object, which decides how the push continues with its result.
#[derive(Debug)]
pub(super) enum Awaited {
    /// The callable of stage `number` returned it for `item`.
    Callable { item: Py<PyAny>, number: usize },
    /// A push into a sink that is not fused. For a fan, with the branches that still lack the item.
    Sink(Option<Missing>),
    /// A callback at the end returned it for `item`; callback `next` is called afterwards.
    Callback {
        functions: Arc<[Py<PyAny>]>,
        item: Py<PyAny>,
        next: usize,
    },
    /// The fan's selector returned it for this item.
    Selector(Py<PyAny>),
}

impl PendingWait {
    pub(super) fn sink(awaitable: Bound<'_, PyAny>) -> Self {
        Self::Await(awaitable.unbind(), Awaited::Sink(None))
    }

    /// Give up the wait. A coroutine is closed, which suppresses its "never awaited" warning.
    pub(super) fn discard(self, py: Python<'_>) -> PyResult<()> {
        if let Self::Await(awaitable, _) = self
            && let Some(close) = awaitable.bind(py).getattr_opt(intern!(py, "close"))?
        {
            close.call0()?;
        }
        Ok(())
    }
}

traverse!(
    enum PendingWait {
        Yield(item),
        Await(awaitable, awaited),
        Space(putting),
        Source(source, _),
    }
);

traverse!(
    enum Awaited {
        Callable { item },
        Sink(missing),
        Callback { item },
        Selector(item),
    }
);

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
    Await(Inner, Awaited),
    Space(Box<PendingPut>),
    Source(Wait, AnySource, usize),
}

impl SuspendPoint {
    /// Return whether foreign code is suspended here. It may catch a thrown error, or raise its own.
    pub(super) fn runs_foreign_code(&self) -> bool {
        !matches!(self, Self::Yield(_) | Self::Space(_))
    }
}

traverse!(
    enum SuspendPoint {
        Yield(item),
        Await(inner, awaited),
        Space(putting),
        Source(wait, source, _),
    }
);
