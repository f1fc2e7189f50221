//! The self-test of the free list of awaitables: revives a dead awaitable and drives it to its end.
//! `type_object.rs` runs it before it keeps dead awaitables.

use std::ffi::CStr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use super::Step;
use super::delegate::send;
use super::type_object::{Coroutine, Native, Object, own_class};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::runtime::private_layout;

/// An awaitable that suspends once, and then returns the object that it holds.
struct Probe {
    held: Option<Py<PyAny>>,
    has_waited: bool,
}

impl Coroutine for Probe {
    const NAME: &'static CStr = c"headrace._core.Probe";

    own_class!();

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        if !std::mem::replace(&mut self.has_waited, true) {
            return Ok(Step::Yield(value.clone()));
        }
        let held = self.held.take().unwrap_or_else(|| py.None());
        Ok(Step::Return(held.into_bound(py)))
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.held = None;
    }
}

traverse!(Probe { held });

fn probe<'py>(held: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    Native::alloc(held.py(), || Probe {
        held: Some(held.clone().unbind()),
        has_waited: false,
    })
}

/// Return whether dead awaitables can be revived.
pub(super) fn revives(py: Python<'_>) -> PyResult<bool> {
    Native::<Probe>::register(py)?;
    Probe::class().set_most(py, 1);
    let is_as_expected = is_revived(py);
    // Immediately, so that no other object is kept.
    Probe::class().set_most(py, 0);
    is_as_expected
}

fn is_revived(py: Python<'_>) -> PyResult<bool> {
    let held = PyDict::new(py).into_any();
    let first = probe(&held)?;
    if !is_plain(&first.get_type())? {
        return Ok(false);
    }
    drop(first);
    let is_driven = |revived: &Bound<'_, PyAny>| {
        Ok(!private_layout::is_tracked(revived)
            && matches!(send(revived, &held), Ok(Step::Yield(value)) if value.is(&held))
            && private_layout::is_tracked(revived)
            && matches!(send(revived, &held), Ok(Step::Return(value)) if value.is(&held)))
    };
    let kept = || Probe::class().kept(py);
    private_layout::revives(&held, || probe(&held), kept, is_driven)
}

/// Return whether objects of the type have the fields that this crate declares, and none that CPython added.
fn is_plain(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let kind = class.as_type_ptr();
    // SAFETY: a live type; its struct is read after it was compared.
    Ok(private_layout::has_layout_of::<Object<Probe>>(class)?
        && unsafe {
            (*kind).tp_weaklistoffset == 0
                && (*kind).tp_dictoffset == 0
                && ffi::PyType_IS_GC(kind) != 0
        })
}
