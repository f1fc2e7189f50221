//! Driving an async generator without the `asend` object that CPython makes for each of its items.
//!
//! The generator's own type has `am_send`. Sent `None`, it comes to one of three things: a *wrapped
//! value*, which is an item; any other object, which is a suspension to hand up; or its end. Going
//! this way saves a third of the cost of an item. What `asend` does besides is done here too: the
//! loop's hooks are installed by taking the first item the ordinary way (the caller sees to that),
//! and while the generator is suspended inside an item it is marked as running, so that a second
//! `anext()` or an `aclose()` in between fails as it always does.
//!
//! The layout of the wrapped value and the place of the mark are CPython's own business. They are
//! probed when the module is made, on a generator that exercises both; if anything differs from
//! what is expected, [`can_bypass`] stays false and the ordinary way is used.

use std::mem::size_of;
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
/// Where a generator keeps the byte that `ag_running` shows.
static RUNNING: AtomicIsize = AtomicIsize::new(0);

/// A wrapped value: a header and the item.
#[repr(C)]
struct Wrapped {
    base: ffi::PyObject,
    item: *mut ffi::PyObject,
}

/// What one step of a generator came to.
pub(crate) enum Stepped<'py> {
    Item(Bound<'py, PyAny>),
    /// Suspended inside an item; it is marked as running.
    Suspended(Bound<'py, PyAny>),
    End(Python<'py>),
}

/// Whether this interpreter's generators are as this file expects.
#[inline]
pub(super) fn can_bypass() -> bool {
    LAYOUT.is_used()
}

/// One step of an async generator of exactly that type, which has started and is not running.
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

/// The item in a wrapped value; `None` if it is something else.
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

/// Marks a generator that was suspended inside an item as being stepped again.
#[inline]
pub(crate) fn wake(agen: &Bound<'_, PyAny>) {
    set_running(agen, false);
}

/// Marks a generator as being inside an item, or not.
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

/// Probes the interpreter; see the top of this file.
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
    let size: usize = kind.getattr("__basicsize__")?.extract()?;
    if kind.name()? != "async_generator_wrapped_value" || size != size_of::<Wrapped>() {
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

/// Where `ag_running` is kept, as the type's table of members has it.
fn running_offset() -> Option<isize> {
    // SAFETY: the table of a static type is valid for ever and ends with an entry without a name.
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
