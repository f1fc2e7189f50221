//! State that the GIL guards. Nearly every native class keeps its state in one.
//!
//! Objects of this crate are shared by all holders of a reference. Python code may run between almost any two statements: a user's
//! callable, a `__del__`, another thread after a switch. [`GilCell`] is a `RefCell` for such objects:
//!
//! - The token `Python<'py>` proves that the thread is attached when a borrow starts and ends, so two threads never use the flag at
//!   the same time.
//! - The flag detects a borrow that is still open when other code borrows again.
//!
//! **No borrow may be open across a call into Python**: copy the needed values, end the borrow, then call.

use std::cell::{RefCell, RefMut};

use pyo3::prelude::*;

#[cfg(Py_GIL_DISABLED)]
compile_error!("headrace relies on the GIL; free-threaded builds of CPython are not supported yet");

/// A `RefCell` whose flag the GIL guards.
#[derive(Debug, Default)]
pub(crate) struct GilCell<T>(RefCell<T>);

// SAFETY: every access below takes a `Python` token, so it happens on a thread that holds the GIL,
// and builds without a GIL are refused above. The flag of the `RefCell` is therefore only ever read
// and written under one lock, the GIL.
unsafe impl<T: Send> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Borrow the value.
    ///
    /// # Panics
    ///
    /// If another borrow is open: a fault of this crate, which held one across a call into Python.
    #[inline]
    #[track_caller]
    pub(crate) fn borrow(&self, _py: Python<'_>) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }

    /// Replace the value, and drop the old one after the borrow has ended: its destructor may borrow again.
    #[inline]
    #[track_caller]
    pub(crate) fn set(&self, py: Python<'_>, value: T) {
        drop(self.replace(py, value));
    }

    /// Replace the value, and return the old one.
    #[inline]
    #[track_caller]
    pub(crate) fn replace(&self, py: Python<'_>, value: T) -> T {
        std::mem::replace(&mut *self.borrow(py), value)
    }

    /// Take the value, and leave an empty one.
    #[inline]
    #[track_caller]
    pub(crate) fn take(&self, py: Python<'_>) -> T
    where
        T: Default,
    {
        std::mem::take(&mut *self.borrow(py))
    }

    /// Borrow the value unless it is borrowed. For the collector, which may run while a borrow is open, and treats
    /// contents that it cannot visit as reachable.
    ///
    /// There is no token, because traversal forbids everything that a token allows. The GIL is held nevertheless.
    #[inline]
    pub(crate) fn peek_for_gc(&self) -> Option<RefMut<'_, T>> {
        self.0.try_borrow_mut().ok()
    }
}

impl<T> GilCell<Option<Py<T>>> {
    /// Return the object, if there is one.
    #[inline]
    #[track_caller]
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        self.borrow(py)
            .as_ref()
            .map(|object| object.bind(py).clone())
    }
}
