//! The `StopIteration` that carries a value out of `tp_iternext`.
//!
//! On CPython 3.12 to 3.14 an await delivers through `tp_iternext`, so every ready item would cost
//! a freshly built exception: more than all the rest of the await. Here it is a subtype with a free
//! list of its own. A dead instance is kept for reuse only if it is as good as new (no dict,
//! traceback, context, cause or notes), so that whoever keeps one, a debugger, `sys.settrace` or
//! `sys.monitoring`, keeps it whole.
//!
//! The value is written into the field, not passed to the constructor:
//! `PyErr_SetObject(StopIteration, v)` would unpack a tuple and take an exception for the error
//! itself.
//!
//! The fields of an exception and reviving a dead one are a [private layout](LAYOUT). The fallback calls `StopIteration`, whose only
//! argument becomes the value as it is.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem::{offset_of, size_of};
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

// SAFETY: read and written with the GIL held only, and no Python code runs between a read and its
// write.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State {
    class: ptr::null_mut(),
    free: [ptr::null_mut(); FREE_LIST],
    kept: 0,
}));

/// Creates the subtype.
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

/// An instance with this value in it, owned; null with an exception set if there is no memory.
///
/// # Safety
///
/// The thread is attached; `value` is owned, and taken over.
unsafe fn instance(value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: an object on the free list is a dead instance of our subtype with all fields but
    // `args` null; see `dealloc`.
    unsafe {
        let state = &mut *STATE.0.get();
        let object = if state.kept > 0 {
            state.kept -= 1;
            let object = state.free[state.kept];
            // From none to one, as in `type_object.rs`.
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

/// Raises `StopIteration(value)`.
///
/// # Safety
///
/// The thread is attached, no exception is set, and `value` is owned; it is taken over.
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
    // SAFETY: attached; `value` is handed over.
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
    // SAFETY: CPython calls this once, with the last reference gone. Fields are cleared before
    // anything is released, so that code which a release runs cannot meet a half-dead object. The
    // type's reference goes with the memory.
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
        // SAFETY: the GIL is held. What was kept is given up, since nothing is known of it.
        unsafe {
            let state = &mut *STATE.0.get();
            state.class = ptr::null_mut();
            state.kept = 0;
        }
    }
    is_as_expected
}

/// Whether each field of a `StopIteration` is where this build expects it, as far as this crate reads or writes it.
fn has_known_fields(py: Python<'_>) -> PyResult<bool> {
    type Object = ffi::PyStopIterationObject;
    let class = py.get_type::<PyStopIteration>();
    if !is_known(&class)? {
        return Ok(false);
    }
    let value = PyDict::new(py).into_any();
    let stop = class.call1((&value,))?;
    let read = |offset: usize| {
        // SAFETY: the size of the object was compared. The pointer is only compared.
        unsafe {
            let field = stop.as_ptr().byte_add(offset);
            field.cast::<*mut ffi::PyObject>().read()
        }
    };
    let is = |offset: usize, object: &Bound<'_, PyAny>| ptr::eq(read(offset), object.as_ptr());
    // Null in a new one, as `dealloc` expects.
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
    // What is raised gets a traceback.
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
    // The notes are in the dictionary: their field is there for those who write C.
    stop.call_method1(intern!(py, "add_note"), ("a note",))?;
    Ok(is_known
        && is(
            offset_of!(Object, dict),
            &stop.getattr(intern!(py, "__dict__"))?,
        ))
}

/// Whether exceptions of a type are of the expected size, and have a dictionary but no list of weak references.
fn is_known(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let kind = class.as_type_ptr();
    // SAFETY: a live type; its struct is looked at once it is known.
    Ok(private_layout::has_known_struct(class)?
        && !private_layout::has_managed_fields(class)
        && unsafe {
            (*kind).tp_basicsize.cast_unsigned() == size_of::<ffi::PyStopIterationObject>()
                && (*kind).tp_dictoffset.cast_unsigned()
                    == offset_of!(ffi::PyStopIterationObject, dict)
                && (*kind).tp_weaklistoffset == 0
                && ffi::PyType_IS_GC(kind) != 0
        })
}

/// Whether an instance of the subtype that died is as good as a new one.
fn is_revived(py: Python<'_>) -> PyResult<bool> {
    let value = PyDict::new(py).into_any();
    // SAFETY: attached, and the value is handed over.
    let make = || unsafe { Bound::from_owned_ptr_or_err(py, instance(value.clone().into_ptr())) };
    // SAFETY: the GIL is held.
    let kept = || unsafe { (*STATE.0.get()).kept };
    let first = make()?;
    let class = first.get_type();
    // SAFETY: a live object.
    let references = || unsafe { ffi::Py_REFCNT(class.as_ptr()) };
    let is_subtype = class.is_subclass_of::<PyStopIteration>()? && is_known(&class)?;
    if !is_subtype || !private_layout::is_tracked(&first) {
        return Ok(false);
    }
    let (with_one, address) = (references(), first.as_ptr());
    drop(first);
    for _ in 0..2 {
        // Its value is gone; its reference to its type is not.
        if kept() != 1 || references() != with_one || !private_layout::has_references(&value, 1) {
            return Ok(false);
        }
        let revived = make()?;
        let is_new = ptr::eq(revived.as_ptr(), address)
            && kept() == 0
            && revived.get_type().is(&class)
            && private_layout::has_references(&revived, 1)
            && private_layout::is_tracked(&revived)
            && revived.getattr(intern!(py, "value"))?.is(&value)
            && revived.getattr(intern!(py, "args"))?.len()? == 0
            && revived.getattr(intern!(py, "__traceback__"))?.is_none();
        if !is_new {
            return Ok(false);
        }
    }
    // Raised, it is the same; one with a context is not kept.
    // SAFETY: attached, no exception is set, and the value is handed over.
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
