//! Private layouts of CPython, each with a self-test and a fallback.
//! `lib.rs` calls `register`, which runs the self-tests; the file of each fast path holds its `Layout`.
//!
//! Some fast paths read or write memory whose layout is no public API of CPython, or rely on a private attribute of asyncio. A
//! point release may change either. So each of them is a [`Layout`]: a name, and a self-test that runs once, when the module is
//! imported. If the self-test fails, raises, or is skipped, the fast path is off, and the public API is used instead.
//!
//! A self-test tests behaviour: it makes an object, uses it in the way of the fast path, and compares the results. Before it
//! follows a pointer it compares sizes and offsets with those that the public API returns, so that a wrong layout makes it fail
//! instead of crashing the process.
//!
//! Where a fast path is disabled at its source (an empty free list, a slot that is not replaced, a descriptor that is not found),
//! nothing has to be checked while it runs. Otherwise [`Layout::is_used`] costs a load and a branch.
//!
//! The environment variable [`VARIABLE`] turns layouts off, by their names or all at once. It serves the tests, and it is the
//! emergency exit if a release of CPython changes something that a self-test does not notice.

use std::mem::size_of;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::coroutine::{self, stop_iteration, type_object};
use crate::merge::task_context;
use crate::object::fast_attr;
use crate::object::freelist;
use crate::pull::control;
use crate::runtime::{asyncio, clock};
use crate::source::async_gen;

/// The names of layouts that must not be used, separated by commas; or `all`. It is read once, at import.
const VARIABLE: &str = "HEADRACE_NO_PRIVATE_LAYOUTS";

/// All layouts. A layout is listed after those that its self-test uses.
static LAYOUTS: [&Layout; 12] = [
    &async_gen::LAYOUT,
    &type_object::LAYOUT,
    &freelist::LAYOUT,
    &stop_iteration::LAYOUT,
    &control::LAYOUT,
    &fast_attr::LAYOUT,
    &coroutine::CALLBACK_LAYOUT,
    &clock::LAYOUT,
    &asyncio::LOOP_THREAD,
    &asyncio::CURRENT_TASKS,
    &asyncio::TASK_STEPS,
    &task_context::SWAP,
];

/// A private layout of CPython.
pub(crate) struct Layout {
    name: &'static str,
    /// Returns whether the interpreter has this layout.
    test: fn(Python<'_>) -> PyResult<bool>,
    is_used: AtomicBool,
}

impl Layout {
    pub(crate) const fn new(name: &'static str, test: fn(Python<'_>) -> PyResult<bool>) -> Self {
        Self {
            name,
            test,
            is_used: AtomicBool::new(false),
        }
    }

    /// Return whether the fast path may be taken.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(Relaxed)
    }
}

/// Run the self-tests. Must be called before any layout is used.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let refused = std::env::var(VARIABLE).unwrap_or_default();
    let refused: Vec<_> = (refused.split(',').map(str::trim))
        .filter(|name| !name.is_empty())
        .collect();
    warn_of_unknown(py, &refused)?;
    for layout in LAYOUTS {
        let is_refused = (refused.iter()).any(|&name| name == "all" || name == layout.name);
        // An error means a different layout too, such as a missing attribute.
        let is_used = !is_refused && (layout.test)(py).unwrap_or(false);
        layout.is_used.store(is_used, Relaxed);
    }
    module.add_function(wrap_pyfunction!(private_layouts, module)?)
}

/// Warn of a misspelled name, which would leave the layout on. An error would stop a program that names a removed
/// layout.
fn warn_of_unknown(py: Python<'_>, refused: &[&str]) -> PyResult<()> {
    for &name in refused {
        if name != "all" && LAYOUTS.iter().all(|layout| layout.name != name) {
            let known = LAYOUTS.map(|layout| layout.name).join(", ");
            let message = format!("{VARIABLE} names {name:?}, but the names are all, {known}");
            let category = py.get_type::<PyRuntimeWarning>();
            PyErr::warn(py, &category, &std::ffi::CString::new(message)?, 1)?;
        }
    }
    Ok(())
}

/// Return the private layouts of CPython by name, and whether each is in use.
#[pyfunction]
fn private_layouts(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let layouts = PyDict::new(py);
    for layout in LAYOUTS {
        layouts.set_item(layout.name, layout.is_used())?;
    }
    Ok(layouts)
}

/// Return whether the fields of a type's struct have the expected offsets. Compares those that Python shows, which are
/// at the beginning, in the middle and towards the end of the slots that this crate reads.
pub(crate) fn has_known_struct(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    let shown = |name| class.getattr(name);
    let base = shown(intern!(py, "__base__"))?;
    // The fields below must be within the size of the type object.
    let metatype = class.get_type();
    let size: usize = metatype.getattr(intern!(py, "__basicsize__"))?.extract()?;
    if size < size_of::<ffi::PyTypeObject>() {
        return Ok(false);
    }
    let (basic, item): (isize, isize) = (
        shown(intern!(py, "__basicsize__"))?.extract()?,
        shown(intern!(py, "__itemsize__"))?.extract()?,
    );
    let (dict, weak): (isize, isize) = (
        shown(intern!(py, "__dictoffset__"))?.extract()?,
        shown(intern!(py, "__weakrefoffset__"))?.extract()?,
    );
    let flags: std::ffi::c_ulong = shown(intern!(py, "__flags__"))?.extract()?;
    let kind = class.as_type_ptr();
    // SAFETY: a live type, which is large enough. The pointer is only compared.
    unsafe {
        let expected_base = if base.is_none() {
            std::ptr::null_mut()
        } else {
            base.as_ptr()
        };
        Ok((*kind).tp_basicsize == basic
            && (*kind).tp_itemsize == item
            && (*kind).tp_flags == flags
            && (*kind).tp_weaklistoffset == weak
            && (*kind).tp_base.cast() == expected_base
            && (*kind).tp_dictoffset == dict)
    }
}

/// Return whether CPython keeps a dictionary or a list of weak references in front of each object of a type.
pub(crate) fn has_managed_fields(class: &Bound<'_, PyType>) -> bool {
    /// `Py_TPFLAGS_MANAGED_WEAKREF`, from 3.12 on, and `Py_TPFLAGS_MANAGED_DICT`.
    const MANAGED: std::ffi::c_ulong = 1 << 3 | 1 << 4;
    // SAFETY: a live type.
    unsafe { ffi::PyType_GetFlags(class.as_type_ptr()) & MANAGED != 0 }
}

/// Return whether objects of a type have the size of `T`, and CPython keeps no fields in front of them.
pub(crate) fn has_layout_of<T>(class: &Bound<'_, PyType>) -> PyResult<bool> {
    // SAFETY: a live type, whose struct was compared.
    Ok(has_known_struct(class)?
        && !has_managed_fields(class)
        && unsafe { (*class.as_type_ptr()).tp_basicsize }.cast_unsigned() == size_of::<T>())
}

/// Return whether dead objects of a class are kept and revived. `make` makes an object, or revives one, which must hold
/// `held`. `kept` returns the number of dead objects. `is_as_new` tests and uses a revived object.
pub(crate) fn revives<'py>(
    held: &Bound<'py, PyAny>,
    make: impl Fn() -> PyResult<Bound<'py, PyAny>>,
    kept: impl Fn() -> usize,
    is_as_new: impl Fn(&Bound<'py, PyAny>) -> PyResult<bool>,
) -> PyResult<bool> {
    let first = make()?;
    let class = first.get_type().into_any();
    // SAFETY: a live object.
    let references = || unsafe { ffi::Py_REFCNT(class.as_ptr()) };
    let (with_one, address) = (references(), first.as_ptr());
    drop(first);
    // A dead object keeps the reference to its type, and has dropped `held`.
    let is_dead = || kept() == 1 && references() == with_one && has_references(held, 1);
    for _ in 0..2 {
        if !is_dead() {
            return Ok(false);
        }
        let revived = make()?;
        let is_same = std::ptr::eq(revived.as_ptr(), address)
            && kept() == 0
            && references() == with_one
            && revived.get_type().is(&class)
            && has_references(&revived, 1);
        if !is_same || !is_as_new(&revived)? {
            return Ok(false);
        }
    }
    Ok(is_dead())
}

/// Return whether an object has the plain reference count that this crate expects.
pub(crate) fn has_references(object: &Bound<'_, PyAny>, count: ffi::Py_ssize_t) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) == count }
}

/// Return whether the garbage collector tracks an object.
pub(crate) fn is_tracked(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::PyObject_GC_IsTracked(object.as_ptr()) != 0 }
}
