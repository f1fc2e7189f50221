//! Garbage collection: how native objects show their references to CPython's collector.
//!
//! A type that may hold Python objects implements [`Traverse`], as a rule by [`traverse!`], which visits the named fields. `PyO3`'s
//! classes pass it to [`visit`] in their `__traverse__`; the heap types of [`crate::coroutine`] do so by themselves.

use std::collections::VecDeque;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::gil_cell::GilCell;

/// The collector's callback, which is passed each reference.
pub(crate) type Visitor<'a> = &'a mut dyn FnMut(&Py<PyAny>) -> Result<(), VisitError>;

/// The code with which the collector stopped a traversal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VisitError(pub(crate) std::ffi::c_int);

/// Something that may hold references to Python objects.
pub(crate) trait Traverse {
    /// Passes each reference to `visit`. Calls nothing else of Python: the collector is running.
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError>;
}

impl<T> Traverse for Py<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(self.as_any())
    }
}

impl<T: Traverse> Traverse for Option<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.iter().try_for_each(|value| value.traverse(visit))
    }
}

impl<T: Traverse + ?Sized> Traverse for Box<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        (**self).traverse(visit)
    }
}

impl<T: Traverse> Traverse for Vec<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.iter().try_for_each(|value| value.traverse(visit))
    }
}

impl<T: Traverse> Traverse for VecDeque<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.iter().try_for_each(|value| value.traverse(visit))
    }
}

/// A cell that is borrowed is skipped: the collector then takes its contents for alive.
impl<T: Traverse> Traverse for GilCell<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.peek_for_gc()
            .map_or(Ok(()), |value| value.traverse(visit))
    }
}

/// Implements [`Traverse`] by visiting the named fields: `traverse!(Kernel { transform, state })`, with type parameters
/// `traverse!([T: Traverse] Pair<T> { 0, 1 })`.
macro_rules! traverse {
    ([$($generics:tt)*] $type:ty { $($field:tt),* }) => {
        impl<$($generics)*> crate::object::gc::Traverse for $type {
            #[allow(unused_variables, reason = "a type may hold no reference")]
            fn traverse(
                &self,
                visit: crate::object::gc::Visitor<'_>,
            ) -> Result<(), crate::object::gc::VisitError> {
                $(crate::object::gc::Traverse::traverse(&self.$field, visit)?;)*
                Ok(())
            }
        }
    };
    ($type:ty { $($field:tt),* }) => {
        crate::object::gc::traverse!([] $type { $($field),* });
    };
}
pub(crate) use traverse;

/// Passes the references that `traverse` finds to the collector's visitor of a `PyO3` class.
pub(crate) fn visit(
    visitor: &PyVisit<'_>,
    traverse: impl FnOnce(Visitor<'_>) -> Result<(), VisitError>,
) -> Result<(), PyTraverseError> {
    let mut stopped = None;
    let mut visit = |reference: &Py<PyAny>| {
        visitor.call(reference).map_err(|error| {
            stopped = Some(error);
            VisitError(1)
        })
    };
    // The error to return is the one kept above.
    let _ = traverse(&mut visit);
    stopped.map_or(Ok(()), Err)
}
