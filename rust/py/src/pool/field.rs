//! An attribute that C keeps in an object, read without a look-up of its name.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// One that is read for every task, of objects that are all of one class.
pub(super) struct Field {
    name: &'static str,
    /// Of the class of the first object; nothing if that keeps it in another way.
    found: PyOnceLock<Option<Found>>,
}

/// The descriptor in the class, and how it is asked.
struct Found {
    class: Py<PyType>,
    descriptor: Py<PyAny>,
    get: ffi::descrgetfunc,
}

impl Field {
    pub(super) const fn new(name: &'static str) -> Self {
        Self {
            name,
            found: PyOnceLock::new(),
        }
    }

    /// What it is for this object; nothing if it has to be looked up.
    #[inline]
    pub(super) fn read<'py>(
        &self,
        object: &Bound<'py, PyAny>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let py = object.py();
        let found = (self.found)
            .get_or_init(py, || Found::of(&object.get_type(), self.name))
            .as_ref()?;
        let class = object.get_type_ptr();
        if !std::ptr::eq(class, found.class.bind(py).as_type_ptr()) {
            return None;
        }
        // SAFETY: the descriptor, an object of the very class that it is of, and that class, all alive; it gives a new
        // reference, or raises.
        Some(unsafe {
            let got = (found.get)(found.descriptor.as_ptr(), object.as_ptr(), class.cast());
            Bound::from_owned_ptr_or_err(py, got)
        })
    }
}

impl Found {
    #[cold]
    fn of(class: &Bound<'_, PyType>, name: &str) -> Option<Self> {
        let descriptor = class.getattr(name).ok()?;
        let kind = descriptor.get_type_ptr();
        // A slot of C's or one that `__slots__` made, of this class and no other: those of C never change.
        let is_slot = [
            &raw mut ffi::PyGetSetDescr_Type,
            &raw mut ffi::PyMemberDescr_Type,
        ]
        .contains(&kind);
        if !is_slot || !descriptor.getattr("__objclass__").ok()?.is(class) {
            return None;
        }
        // SAFETY: a type that is there for good.
        let get = unsafe { (*kind).tp_descr_get }?;
        Some(Self {
            class: class.clone().unbind(),
            descriptor: descriptor.unbind(),
            get,
        })
    }
}
