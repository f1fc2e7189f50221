//! The guard against subinterpreters. `lib.rs` checks it at import.
//!
//! Types, free lists and cached Python objects are `static`: one of each for the process. A second interpreter would share them with
//! the main one, whose objects it must not use. CPython itself refuses an extension like this one only in interpreters with a GIL of
//! their own, from 3.12 on.

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Refuse any interpreter but the main one. Must be called before any `static` is written: then the main interpreter
/// can still import the module after a refusal.
///
/// # Errors
///
/// `ImportError`.
pub(crate) fn check(_attached: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached. The pointers are compared, and nothing is read through them.
    let is_main = unsafe { ffi::PyInterpreterState_Get() == ffi::PyInterpreterState_Main() };
    if is_main {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "headrace works in the main interpreter only, and cannot be imported in a subinterpreter; use threads or processes",
    ))
}
