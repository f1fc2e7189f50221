//! `SourcePull`: one pull of a source by a native coroutine that pulls it item by item.
//! The feeder of the pool and the driver of a concurrent `map` use it.

use pyo3::prelude::*;

use super::awaitable::{Pull, ResultFormat};
use super::control::as_link;
use super::link::PyPullLink;
use crate::coroutine::{Coroutine, Inner, Step, delegate};
use crate::object::gc::{Traverse, VisitError, Visitor, traverse};

/// A source of items, which any object with `anext()` may be.
#[derive(Debug)]
pub(crate) struct PulledSource {
    source: Py<PyAny>,
    /// The source, if it is a link whose class does not override how it is pulled.
    link: Option<Py<PyPullLink>>,
}

impl PulledSource {
    pub(crate) fn new(source: &Bound<'_, PyAny>) -> Self {
        Self {
            link: as_link(source).map(Bound::unbind),
            source: source.clone().unbind(),
        }
    }

    /// Return the next pull, which has not started.
    #[inline]
    pub(crate) fn pull(&self, py: Python<'_>) -> PyResult<SourcePull> {
        Ok(match &self.link {
            Some(link) => SourcePull::Link(Pull::new(link.bind(py).clone(), ResultFormat::Item)),
            None => SourcePull::Other(Inner::of(delegate::next(self.source.bind(py))?)?),
        })
    }
}

traverse!(PulledSource { source, link });

/// One pull of a source.
#[derive(Debug)]
pub(crate) enum SourcePull {
    /// The pull of a link whose class does not override how it is pulled.
    Link(Pull),
    Other(Inner),
}

impl SourcePull {
    #[inline]
    pub(crate) fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        match self {
            Self::Link(pull) => pull.send(value).map_err(|raised| raised.fetch(value.py())),
            Self::Other(pull) => pull.send(value),
        }
    }

    pub(crate) fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        match self {
            Self::Link(pull) => pull.throw(py, error),
            Self::Other(pull) => pull.throw(py, error),
        }
    }

    pub(crate) fn abandon(&mut self, py: Python<'_>) {
        if let Self::Link(pull) = self {
            pull.abandon(py);
        }
    }
}

impl Traverse for SourcePull {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match self {
            Self::Link(pull) => pull.traverse(visit),
            Self::Other(pull) => visit(pull.object()),
        }
    }
}
