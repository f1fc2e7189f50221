//! Visiting the references of native objects for CPython's garbage collector.
//!
//! A type that may hold Python objects implements [`Traverse`], usually with [`traverse!`]. The classes of `PyO3` pass it to [`visit`]
//! in `__traverse__`; the heap types of [`crate::coroutine`] call it themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::gil_cell::GilCell;

/// The collector's callback, which is passed each reference.
pub(crate) type Visitor<'a> = &'a mut dyn FnMut(&Py<PyAny>) -> Result<(), VisitError>;

/// The code that the collector returned to stop a traversal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VisitError(pub(crate) std::ffi::c_int);

/// Something that may hold references to Python objects.
pub(crate) trait Traverse {
    /// Pass each reference to `visit`. Must not call any other Python code: the collector is running.
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError>;
}

impl<T> Traverse for Py<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(self.as_any())
    }
}

/// Implements [`Traverse`] for types that contain a value or several.
macro_rules! traverse_contents {
    (pointer: $($pointer:ident),+; collection: $($collection:ident),+) => {
        $(impl<T: Traverse + ?Sized> Traverse for $pointer<T> {
            fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
                (**self).traverse(visit)
            }
        })+
        $(impl<T: Traverse> Traverse for $collection<T> {
            fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
                self.iter().try_for_each(|value| value.traverse(visit))
            }
        })+
    };
}

traverse_contents!(pointer: Box, Arc; collection: Option, Vec, VecDeque);

impl<T: Traverse> Traverse for OnceLock<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.get().map_or(Ok(()), |value| value.traverse(visit))
    }
}

impl<K, V: Traverse> Traverse for BTreeMap<K, V> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.values().try_for_each(|value| value.traverse(visit))
    }
}

/// Skips a borrowed cell: the collector then treats its contents as reachable.
impl<T: Traverse> Traverse for GilCell<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.peek_for_gc()
            .map_or(Ok(()), |value| value.traverse(visit))
    }
}

/// Implements [`Traverse`] by visiting the named fields.
///
/// - A struct: `traverse!(Kernel { transform, state })`; with type parameters, `traverse!([T: Traverse] Pair<T> { 0, 1 })`.
/// - An enum: `traverse!(enum State { Running(iterator), Failed(_, error), Merging { waiter }, Counted {}, Ended })`. Each bound
///   name is visited; `{}` stands for fields without references.
macro_rules! traverse {
    (@visit $visit:ident _) => {};
    (@visit $visit:ident $field:ident) => {
        crate::object::gc::Traverse::traverse($field, $visit)?;
    };
    ([$($generics:tt)*] enum $type:ty { $($variant:ident $(($($item:tt),*))? $({ $($field:ident),* })?),* $(,)? }) => {
        impl<$($generics)*> crate::object::gc::Traverse for $type {
            fn traverse(
                &self,
                visit: crate::object::gc::Visitor<'_>,
            ) -> Result<(), crate::object::gc::VisitError> {
                match self {
                    $(Self::$variant $(($($item),*))? $({ $($field,)* .. })? => {
                        $($(crate::object::gc::traverse!(@visit visit $item);)*)?
                        $($(crate::object::gc::traverse!(@visit visit $field);)*)?
                    })*
                }
                Ok(())
            }
        }
    };
    (enum $($rest:tt)*) => {
        crate::object::gc::traverse!([] enum $($rest)*);
    };
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

/// Pass the references that `traverse` finds to the collector's visitor of a `PyO3` class.
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
