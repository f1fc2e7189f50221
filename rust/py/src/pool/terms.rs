//! What a plain task asks for.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

use super::body::Call;

/// What there is to know of a plain task before it is called.
#[derive(Debug)]
pub(super) struct Terms<'py> {
    pub(super) call: Call,
    pub(super) key: Option<Bound<'py, PyAny>>,
    /// The key, as a part of the name of its asyncio task.
    pub(super) shown: Option<Bound<'py, PyString>>,
    /// Nothing for one slot.
    pub(super) cost: Option<Bound<'py, PyAny>>,
    /// The one it was built in. For a bare callable it is that of the run.
    pub(super) context: Option<Bound<'py, PyAny>>,
}

impl<'py> Terms<'py> {
    /// Those of an item, if it is a plain task;
    pub(super) fn of(
        item: &Bound<'py, PyAny>,
        task_class: &Bound<'py, PyType>,
    ) -> PyResult<Option<Self>> {
        let py = item.py();
        if !item.get_type().is(task_class) {
            let is_bare = item.is_callable() && !is_one_of(item, task_class);
            return Ok(is_bare.then(|| Self {
                call: Call {
                    fn_: item.clone().unbind(),
                    args: None,
                },
                key: None,
                shown: None,
                cost: None,
                context: None,
            }));
        }
        if !item.getattr(intern!(py, "is_plain"))?.is_truthy()? {
            return Ok(None);
        }
        let key = item.getattr(intern!(py, "key"))?;
        let key = (!key.is_none()).then_some(key);
        // A key that cannot be printed is left to Python.
        let Ok(shown) = key.as_ref().map(PyAnyMethods::str).transpose() else {
            return Ok(None);
        };
        let args = item.getattr(intern!(py, "args"))?.cast_into::<PyTuple>()?;
        Ok(Some(Self {
            call: Call {
                fn_: item.getattr(intern!(py, "fn"))?.unbind(),
                args: (!args.is_empty()).then(|| args.unbind()),
            },
            key,
            shown,
            cost: Some(item.getattr(intern!(py, "cost"))?),
            context: Some(item.getattr(intern!(py, "context"))?),
        }))
    }
}

/// Whether it is an object of the class or of one below it, whatever it says itself.
#[inline]
fn is_one_of(object: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> bool {
    // SAFETY: two live objects, and `class` is a type.
    unsafe { ffi::PyObject_TypeCheck(object.as_ptr(), class.as_type_ptr()) != 0 }
}
