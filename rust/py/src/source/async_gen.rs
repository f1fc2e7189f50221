//! Driving an async generator without the `asend` object that CPython makes for each of its items.
//! `async_iter.rs` uses it.
//!
//! The generator's own type has `am_send`. Sending `None` has one of three results: a *wrapped value*, which is an item; any
//! other object, which is a suspension to yield to the task; or the end. This saves a third of the cost of an item. The two side
//! effects of `asend` are reproduced:
//!
//! - The event loop's hooks are installed by taking the first item through `anext()`, which is the caller's job.
//! - A generator that is suspended inside an item is marked as running. A second `anext()` or an `aclose()` in between then
//!   fails as usual.
//!
//! The layout of the wrapped value and the offset of the mark are private to CPython. The self-test exercises both on a generator
//! at import. If it fails, [`can_bypass`] is false and `anext()` is used for each item.

use std::sync::atomic::{AtomicIsize, AtomicPtr, Ordering::Relaxed};

use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::coroutine::Step;
use crate::coroutine::delegate::send;
use crate::runtime::private_layout::{self, Layout};

pub(crate) static LAYOUT: Layout = Layout::new("async_generators", self_test);
/// The type of a wrapped value.
static WRAPPED: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());
/// The offset of the byte that `ag_running` shows.
static RUNNING: AtomicIsize = AtomicIsize::new(0);

/// A wrapped value: a header and the item.
#[repr(C)]
struct Wrapped {
    base: ffi::PyObject,
    item: *mut ffi::PyObject,
}

/// The result of one step of a generator.
pub(crate) enum Stepped<'py> {
    Item(Bound<'py, PyAny>),
    /// Suspended inside an item; it is marked as running.
    Suspended(Bound<'py, PyAny>),
    End(Python<'py>),
}

/// Return whether the generators of this interpreter have the expected layout.
#[inline]
pub(super) fn can_bypass() -> bool {
    LAYOUT.is_used()
}

/// Run one step of an async generator (of exactly that type), which has started and is not running.
#[inline]
pub(crate) fn step<'py>(
    agen: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Stepped<'py>> {
    let py = agen.py();
    match send(agen, value) {
        Ok(Step::Yield(object)) => Ok(unwrap(&object).map_or_else(
            || {
                set_running(agen, true);
                Stepped::Suspended(object.clone())
            },
            Stepped::Item,
        )),
        Ok(Step::Return(_)) => Ok(Stepped::End(py)),
        Err(error) if error.is_instance_of::<PyStopAsyncIteration>(py) => Ok(Stepped::End(py)),
        Err(error) => Err(error),
    }
}

/// Return the item of a wrapped value; `None` for any other object.
#[inline]
fn unwrap<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    // SAFETY: the type was probed by `self_test` to be that of a wrapped value, whose item is the
    // field behind the header.
    unsafe {
        if !std::ptr::eq(ffi::Py_TYPE(object.as_ptr()), WRAPPED.load(Relaxed)) {
            return None;
        }
        Some(Bound::from_borrowed_ptr(
            object.py(),
            (*object.as_ptr().cast::<Wrapped>()).item,
        ))
    }
}

/// Mark a generator that was suspended inside an item as no longer running, before its next step.
#[inline]
pub(crate) fn wake(agen: &Bound<'_, PyAny>) {
    set_running(agen, false);
}

/// Set whether a generator is marked as running, which is to say inside an item.
pub(super) fn set_running(agen: &Bound<'_, PyAny>, running: bool) {
    let offset = RUNNING.load(Relaxed);
    if offset > 0 {
        // SAFETY: `self_test` found this offset in the type's own table of members, as that of a
        // byte.
        unsafe {
            agen.as_ptr()
                .byte_offset(offset)
                .cast::<u8>()
                .write(u8::from(running));
        };
    }
}

const PROBE: &std::ffi::CStr = c"
async def probe():
    yield marker
    await suspension
    yield marker

class Suspension:
    def __await__(self):
        yield token

marker, token, suspension = object(), object(), Suspension()
agen = probe()
";

/// Probe the interpreter; see the top of this file.
fn self_test(py: Python<'_>) -> PyResult<bool> {
    let scope = PyDict::new(py);
    py.run(PROBE, Some(&scope), None)?;
    let get = |name: &str| -> PyResult<Bound<'_, PyAny>> { scope.as_any().get_item(name) };
    let (agen, marker, token) = (get("agen")?, get("marker")?, get("token")?);
    if !private_layout::has_known_struct(&agen.get_type())? {
        return Ok(false);
    }
    let Some(offset) = running_offset() else {
        return Ok(false);
    };
    let none = py.None().into_bound(py);
    let Ok(Step::Yield(wrapped)) = send(&agen, &none) else {
        return Ok(false);
    };
    let kind = wrapped.get_type();
    if kind.name()? != "async_generator_wrapped_value"
        || !private_layout::has_layout_of::<Wrapped>(&kind)?
    {
        return Ok(false);
    }
    WRAPPED.store(kind.as_type_ptr(), Relaxed);
    RUNNING.store(offset, Relaxed);
    let holds = unwrap(&wrapped).is_some_and(|item| item.is(&marker))
        && matches!(step(&agen, &none), Ok(Stepped::Suspended(object)) if object.is(&token))
        && agen.getattr("ag_running")?.is_truthy()?
        && {
            set_running(&agen, false);
            !agen.getattr("ag_running")?.is_truthy()?
        }
        && matches!(step(&agen, &none), Ok(Stepped::Item(item)) if item.is(&marker))
        && matches!(step(&agen, &none), Ok(Stepped::End(_)));
    Ok(holds)
}

/// Return the offset of `ag_running`, from the type's table of members.
fn running_offset() -> Option<isize> {
    // SAFETY: the table of a static type is valid forever and ends with an entry without a name.
    unsafe {
        let mut member = ffi::PyAsyncGen_Type.tp_members;
        if member.is_null() {
            return None;
        }
        while !(*member).name.is_null() {
            let name = std::ffi::CStr::from_ptr((*member).name);
            if name == c"ag_running"
                && (*member).type_code == ffi::Py_T_BOOL
                && (0..ffi::PyAsyncGen_Type.tp_basicsize).contains(&(*member).offset)
            {
                return Some((*member).offset);
            }
            member = member.add(1);
        }
    }
    None
}
