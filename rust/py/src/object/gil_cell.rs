//! State that the GIL guards.
//!
//! The objects of this crate are shared by everything that holds a reference to them, and Python
//! code runs between almost any two of our statements: a callable of the user, a `__del__`, another
//! thread after a switch. [`GilCell`] is a `RefCell` that such objects may hold: the token
//! `Python<'py>` proves that the thread is attached when a borrow starts and ends, so its flag is
//! never touched by two threads at once; and a borrow that is still open when other code arrives is
//! found by the flag, not by a crash. **No borrow may be open across a call into Python**: take
//! what is needed out, let the borrow go, then call.

use std::cell::{RefCell, RefMut};

use pyo3::Python;

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

    /// Borrows the value.
    ///
    /// # Panics
    ///
    /// If another borrow is open: a fault of this crate, which held one across a call into Python.
    #[inline]
    #[track_caller]
    pub(crate) fn borrow(&self, _py: Python<'_>) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }

    /// Borrows the value if nobody else does. The collector asks for it so: it may arrive while a
    /// borrow is open, and what it cannot see it takes for alive.
    ///
    /// It has no token, because traversal forbids everything that a token allows. The GIL is held
    /// all the same.
    #[inline]
    pub(crate) fn peek_for_gc(&self) -> Option<RefMut<'_, T>> {
        self.0.try_borrow_mut().ok()
    }
}
