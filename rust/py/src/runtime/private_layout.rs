//! Private layouts of CPython, each with a self-test and a fallback.
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

/// Names of layouts, separated by commas, which are not to be used; or `all`. It is read once, when the module is imported.
const VARIABLE: &str = "HEADRACE_NO_PRIVATE_LAYOUTS";

/// All of them. A layout comes after those that its self-test uses.
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

    /// Whether the fast path may be taken.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(Relaxed)
    }
}

/// Runs the self-tests. It comes before anything that uses a layout.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let refused = std::env::var(VARIABLE).unwrap_or_default();
    let refused: Vec<_> = (refused.split(',').map(str::trim))
        .filter(|name| !name.is_empty())
        .collect();
    warn_of_unknown(py, &refused)?;
    for layout in LAYOUTS {
        let is_refused = (refused.iter()).any(|&name| name == "all" || name == layout.name);
        // An error is a difference, too: an attribute that is gone, for example.
        let is_used = !is_refused && (layout.test)(py).unwrap_or(false);
        layout.is_used.store(is_used, Relaxed);
    }
    module.add_function(wrap_pyfunction!(private_layouts, module)?)
}

/// A misspelled name would leave the layout on, and an exception would keep a program from starting once a name is gone.
fn warn_of_unknown(py: Python<'_>, refused: &[&str]) -> PyResult<()> {
    for &name in refused {
        if name != "all" && LAYOUTS.iter().all(|layout| layout.name != name) {
            let known = LAYOUTS.map(|layout| layout.name).join(", ");
            let message = format!("{VARIABLE} names {name:?}, but the names are all, {known}\0");
            let message = std::ffi::CStr::from_bytes_until_nul(message.as_bytes());
            let category = py.get_type::<PyRuntimeWarning>();
            PyErr::warn(py, &category, message.unwrap_or(c"unknown name"), 1)?;
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

/// Whether the struct of a type has its fields where this build expects them, as far as Python shows them.
///
/// They are at the beginning, in the middle and towards the end of the slots that this crate reads.
pub(crate) fn has_known_struct(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    let shown = |name| class.getattr(name);
    let base = shown(intern!(py, "__base__"))?;
    // What is read below is within the size of the object that the type is.
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

/// Whether CPython keeps a dictionary or a list of weak references in front of each object of a type.
pub(crate) fn has_managed_fields(class: &Bound<'_, PyType>) -> bool {
    /// `Py_TPFLAGS_MANAGED_WEAKREF`, from 3.12 on, and `Py_TPFLAGS_MANAGED_DICT`.
    const MANAGED: std::ffi::c_ulong = 1 << 3 | 1 << 4;
    // SAFETY: a live type.
    unsafe { ffi::PyType_GetFlags(class.as_type_ptr()) & MANAGED != 0 }
}

/// Whether an object has the plain reference count that this crate expects.
pub(crate) fn has_references(object: &Bound<'_, PyAny>, count: ffi::Py_ssize_t) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) == count }
}

/// Whether the garbage collector tracks an object.
pub(crate) fn is_tracked(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::PyObject_GC_IsTracked(object.as_ptr()) != 0 }
}
