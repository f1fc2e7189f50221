//! An attribute that C keeps in an object, read without a look-up of its name.
//! `runtime/asyncio.rs` and `pool/event_queue.rs` use it.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::runtime::private_layout::{self, Layout};

/// Calling `tp_descr_get` of a descriptor that was found once. The fallback looks the attribute up each time.
pub(crate) static LAYOUT: Layout = Layout::new("descriptors", self_test);

/// One that is read for every task, of objects that are all of one class.
pub(crate) struct Field {
    name: &'static str,
    /// Of the class of the first object; nothing if that keeps it in another way.
    found: PyOnceLock<Option<Found>>,
}

/// The descriptor in the class, and how it is asked.
struct Found {
    class: Py<PyType>,
    descriptor: Py<PyAny>,
    get: ffi::descrgetfunc,
}

impl Field {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            found: PyOnceLock::new(),
        }
    }

    /// Return its value for this object; `None` if it has to be looked up.
    #[inline]
    pub(crate) fn read<'py>(
        &self,
        object: &Bound<'py, PyAny>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let py = object.py();
        let found = (self.found)
            .get_or_init(py, || {
                let found = || Found::of(&object.get_type(), self.name);
                LAYOUT.is_used().then(found).flatten()
            })
            .as_ref()?;
        let class = object.get_type_ptr();
        if !std::ptr::eq(class, found.class.bind(py).as_type_ptr()) {
            return None;
        }
        Some(found.read(object))
    }
}

impl Found {
    /// Read it from an object of the class.
    #[inline]
    fn read<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let class = object.get_type_ptr();
        // SAFETY: the descriptor, an object of the very class that it is of, and that class, all alive; it gives a new
        // reference, or raises.
        unsafe {
            let got = (self.get)(self.descriptor.as_ptr(), object.as_ptr(), class.cast());
            Bound::from_owned_ptr_or_err(object.py(), got)
        }
    }

    #[cold]
    fn of(class: &Bound<'_, PyType>, name: &str) -> Option<Self> {
        let descriptor = class.getattr(name).ok()?;
        let kind = descriptor.get_type_ptr();
        // A slot of C's or one that `__slots__` made, of this class and no other: those of C never change.
        let is_slot = [
            &raw mut ffi::PyGetSetDescr_Type,
            &raw mut ffi::PyMemberDescr_Type,
        ]
        .contains(&kind);
        if !is_slot || !descriptor.getattr("__objclass__").ok()?.is(class) {
            return None;
        }
        // SAFETY: a type that is there for good.
        let get = unsafe { (*kind).tp_descr_get }?;
        Some(Self {
            class: class.clone().unbind(),
            descriptor: descriptor.unbind(),
            get,
        })
    }
}

/// Read attributes of a function: one by a getter, one that is a member.
fn self_test(py: Python<'_>) -> PyResult<bool> {
    let function = py.import("os.path")?.getattr("join")?;
    let class = function.get_type();
    for name in ["__code__", "__globals__"] {
        let kind = class.getattr(name)?.get_type();
        if !private_layout::has_known_struct(&kind)? {
            return Ok(false);
        }
        let Some(found) = Found::of(&class, name) else {
            return Ok(false);
        };
        if !found.read(&function)?.is(&function.getattr(name)?) {
            return Ok(false);
        }
    }
    Ok(true)
}
