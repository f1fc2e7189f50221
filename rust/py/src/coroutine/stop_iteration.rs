//! The `StopIteration` that carries a value out of `tp_iternext`. `type_slots.rs` raises it.
//!
//! On CPython 3.12 to 3.14 an await delivers its result through `tp_iternext`. A new exception for every ready item would cost more than
//! the rest of the await. So the exception is of a subtype with a free list of its own. A dead instance is kept for reuse only if it is as
//! good as new: without a dict, traceback, context, cause or notes. A debugger, `sys.settrace` or `sys.monitoring` may keep an instance.
//!
//! The value is written into the field and not passed to the constructor: `PyErr_SetObject(StopIteration, v)` would unpack a tuple, and
//! treat an exception as the error itself.
//!
//! The fields of an exception and the revival of a dead one are a [private layout](LAYOUT). The fallback calls `StopIteration` with the
//! value as its only argument.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr;

use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::runtime::private_layout::{self, Layout};

pub(crate) static LAYOUT: Layout = Layout::new("stop_iteration", self_test);

const FREE_LIST: usize = 16;

struct State {
    /// The subtype; null if it is not used.
    class: *mut ffi::PyTypeObject,
    free: [*mut ffi::PyObject; FREE_LIST],
    kept: usize,
}

struct Shared(UnsafeCell<State>);

// SAFETY: read and written with the GIL held only, and no Python code runs between a read and its write.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State {
    class: ptr::null_mut(),
    free: [ptr::null_mut(); FREE_LIST],
    kept: 0,
}));

/// Create the subtype.
fn create(py: Python<'_>) -> PyResult<()> {
    let mut slots = [
        ffi::PyType_Slot {
            slot: ffi::Py_tp_dealloc,
            pfunc: dealloc as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: 0,
            pfunc: ptr::null_mut(),
        },
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"headrace._core.StopIteration".as_ptr(),
        // Zero: the size, the traversal and the collector's flag are inherited.
        basicsize: 0,
        itemsize: 0,
        flags: u32::try_from(ffi::Py_TPFLAGS_DEFAULT).expect("the flags of a type are 32 bits"),
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: a well-formed spec over a base that allows subtypes.
    unsafe {
        let class = ffi::PyType_FromSpecWithBases(&raw mut spec, ffi::PyExc_StopIteration);
        if class.is_null() {
            return Err(PyErr::fetch(py));
        }
        (*STATE.0.get()).class = class.cast();
    }
    Ok(())
}

/// Make an instance with this value; null with an exception set if there is no memory.
///
/// # Safety
///
/// The thread is attached; `value` is owned, and moved.
unsafe fn instance(value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the objects of the free list are dead instances of the subtype, whose fields except `args` are null; see `dealloc`.
    unsafe {
        let state = &mut *STATE.0.get();
        let object = if state.kept > 0 {
            state.kept -= 1;
            let object = state.free[state.kept];
            // The count goes from 0 to 1, as in `type_object.rs`.
            ffi::Py_INCREF(object);
            ffi::PyObject_GC_Track(object.cast());
            object
        } else if state.class.is_null() {
            let object = ffi::PyObject_CallOneArg(ffi::PyExc_StopIteration, value);
            ffi::Py_DECREF(value);
            return object;
        } else {
            let object = ffi::PyObject_CallNoArgs(state.class.cast());
            if object.is_null() {
                ffi::Py_DECREF(value);
                return object;
            }
            object
        };
        let field = &raw mut (*object.cast::<ffi::PyStopIterationObject>()).value;
        let old = field.replace(value);
        ffi::Py_XDECREF(old);
        object
    }
}

/// Raise `StopIteration(value)`.
///
/// # Safety
///
/// The thread is attached, no exception is set, and `value` is owned; it is moved.
#[inline]
pub(crate) unsafe fn raise(value: *mut ffi::PyObject) {
    // SAFETY: the caller's promise.
    unsafe {
        let object = instance(value);
        if object.is_null() {
            return;
        }
        #[cfg(Py_3_12)]
        ffi::PyErr_SetRaisedException(object);
        #[cfg(not(Py_3_12))]
        {
            ffi::PyErr_SetObject(ffi::Py_TYPE(object).cast(), object);
            ffi::Py_DECREF(object);
        }
    }
}

/// `StopIteration(value)` as an error, for the rare paths.
pub(crate) fn error(py: Python<'_>, value: Bound<'_, PyAny>) -> PyErr {
    // SAFETY: attached; `value` is moved.
    unsafe {
        let object = instance(value.into_ptr());
        if object.is_null() {
            PyErr::fetch(py)
        } else {
            PyErr::from_value(Bound::from_owned_ptr(py, object))
        }
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls this once, after the last reference was dropped. All fields are cleared before any of their objects is dropped,
    // so that code which a drop runs cannot find a half-dead object. The reference to the type is dropped with the memory.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let this = object.cast::<ffi::PyStopIterationObject>();
        let value = (&raw mut (*this).value).replace(ptr::null_mut());
        let state = &mut *STATE.0.get();
        let fresh = (*this).dict.is_null()
            && (*this).notes.is_null()
            && (*this).traceback.is_null()
            && (*this).context.is_null()
            && (*this).cause.is_null();
        if fresh && state.kept < FREE_LIST {
            state.free[state.kept] = object;
            state.kept += 1;
            ffi::Py_XDECREF(value);
        } else {
            let fields = [
                &raw mut (*this).dict,
                &raw mut (*this).args,
                &raw mut (*this).notes,
                &raw mut (*this).traceback,
                &raw mut (*this).context,
                &raw mut (*this).cause,
            ];
            let class = state.class;
            let held = fields.map(|field| field.replace(ptr::null_mut()));
            ffi::PyObject_GC_Del(object.cast());
            for reference in held {
                ffi::Py_XDECREF(reference);
            }
            ffi::Py_XDECREF(value);
            ffi::Py_DECREF(class.cast());
        }
    }
}

fn self_test(py: Python<'_>) -> PyResult<bool> {
    if !has_known_fields(py)? {
        return Ok(false);
    }
    create(py)?;
    let is_as_expected = is_revived(py);
    if !matches!(is_as_expected, Ok(true)) {
        // SAFETY: the GIL is held. The kept objects are leaked, because their state is unknown.
        unsafe {
            let state = &mut *STATE.0.get();
            state.class = ptr::null_mut();
            state.kept = 0;
        }
    }
    is_as_expected
}

/// Return whether each field of a `StopIteration` that this crate accesses has the expected offset.
fn has_known_fields(py: Python<'_>) -> PyResult<bool> {
    type Object = ffi::PyStopIterationObject;
    let class = py.get_type::<PyStopIteration>();
    if !is_known(&class)? {
        return Ok(false);
    }
    let value = PyDict::new(py).into_any();
    let stop = class.call1((&value,))?;
    let read = |offset: usize| {
        // SAFETY: the size of the object was compared. The pointer is not followed.
        unsafe {
            let field = stop.as_ptr().byte_add(offset);
            field.cast::<*mut ffi::PyObject>().read()
        }
    };
    let is = |offset: usize, object: &Bound<'_, PyAny>| ptr::eq(read(offset), object.as_ptr());
    // These are null in a new instance, as `dealloc` expects.
    let optional = [
        offset_of!(Object, dict),
        offset_of!(Object, notes),
        offset_of!(Object, traceback),
        offset_of!(Object, context),
        offset_of!(Object, cause),
    ];
    if !optional.into_iter().all(|offset| read(offset).is_null()) {
        return Ok(false);
    }
    let (context, cause) = (class.call0()?, class.call0()?);
    stop.setattr(intern!(py, "__context__"), &context)?;
    stop.setattr(intern!(py, "__cause__"), &cause)?;
    let scope = PyDict::new(py);
    scope.set_item("stop", &stop)?;
    // A raised exception gets a traceback.
    py.run(
        c"try:\n    raise stop\nexcept StopIteration:\n    pass",
        Some(&scope),
        None,
    )?;
    let traceback = stop.getattr(intern!(py, "__traceback__"))?;
    let is_known = is(offset_of!(Object, value), &value)
        && is(
            offset_of!(Object, args),
            &stop.getattr(intern!(py, "args"))?,
        )
        && is(offset_of!(Object, context), &context)
        && is(offset_of!(Object, cause), &cause)
        && is(offset_of!(Object, traceback), &traceback)
        && !traceback.is_none();
    // Notes are stored in the dictionary; their field is for C code.
    stop.call_method1(intern!(py, "add_note"), ("a note",))?;
    Ok(is_known
        && is(
            offset_of!(Object, dict),
            &stop.getattr(intern!(py, "__dict__"))?,
        ))
}

/// Return whether exceptions of a type are of the expected size, and have a dictionary but no list of weak references.
fn is_known(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let kind = class.as_type_ptr();
    // SAFETY: a live type; its struct is read after it was compared.
    Ok(
        private_layout::has_layout_of::<ffi::PyStopIterationObject>(class)?
            && unsafe {
                (*kind).tp_dictoffset.cast_unsigned()
                    == offset_of!(ffi::PyStopIterationObject, dict)
                    && (*kind).tp_weaklistoffset == 0
                    && ffi::PyType_IS_GC(kind) != 0
            },
    )
}

/// Return whether a dead instance of the subtype is revived as good as new, and one with a context is not kept.
fn is_revived(py: Python<'_>) -> PyResult<bool> {
    let value = PyDict::new(py).into_any();
    // SAFETY: attached, and the value is moved.
    let make = || unsafe { Bound::from_owned_ptr_or_err(py, instance(value.clone().into_ptr())) };
    // SAFETY: the GIL is held.
    let kept = || unsafe { (*STATE.0.get()).kept };
    let class = make()?.get_type();
    let is_subtype = class.is_subclass_of::<PyStopIteration>()? && is_known(&class)?;
    let is_as_new = |stop: &Bound<'_, PyAny>| {
        Ok(private_layout::is_tracked(stop)
            && stop.getattr(intern!(py, "value"))?.is(&value)
            && stop.getattr(intern!(py, "args"))?.len()? == 0
            && stop.getattr(intern!(py, "__traceback__"))?.is_none())
    };
    if !is_subtype || !private_layout::revives(&value, make, kept, is_as_new)? {
        return Ok(false);
    }
    let address = make()?.as_ptr();
    // SAFETY: a live object.
    let references = || unsafe { ffi::Py_REFCNT(class.as_ptr()) };
    let with_one = references();
    // SAFETY: attached, no exception is set, and the value is moved.
    unsafe { raise(value.clone().into_ptr()) };
    let raised = PyErr::fetch(py).into_value(py).into_bound(py);
    let is_raised =
        ptr::eq(raised.as_ptr(), address) && raised.getattr(intern!(py, "value"))?.is(&value);
    raised.setattr(
        intern!(py, "__context__"),
        py.get_type::<PyStopIteration>().call0()?,
    )?;
    drop(raised);
    Ok(is_raised
        && kept() == 0
        && references() == with_one - 1
        && private_layout::has_references(&value, 1))
}
