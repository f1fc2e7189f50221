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

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

const FREE_LIST: usize = 16;

struct State {
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

/// Creates the subtype. Called once, when the module is made.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
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
