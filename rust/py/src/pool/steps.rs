//! The steps of asyncio tasks that begin: those of one turn in one callback.
//!
//! Before 3.12 CPython cannot have a new task do its first step at once. The lane does that in the task's name (see
//! [`work`](super::work)); but the constructor has asked the loop for a step of the task already, in which this finds what
//! came of the first one. The loop keeps each such step in a handle, which it makes and runs in Python, and that is a
//! third of what the whole task costs.
//!
//! So, for as long as that constructor runs, `call_soon` of the loop is ours: an attribute of the object, which hides that
//! of the class. It keeps the step, and has the loop call all that it keeps, in their order and each in its context. What
//! is no such step (a finaliser may run meanwhile) goes to the loop as ever. A loop that has a `call_soon` of its own, that
//! shuffles what it runs, or that has no attributes is left alone.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::coroutine::{Seen, Stopped};
use crate::object::gc;
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::runtime::asyncio::InContext;

/// The attribute that is ours meanwhile.
const NAME: &str = "call_soon";

/// The steps that the loop was asked for and has not taken.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct Steps {
    /// That of the loop itself.
    call_soon: Py<PyAny>,
    /// For the callback that takes them.
    context: Py<PyAny>,
    kept: GilCell<Vec<Kept>>,
}

/// One of them, and the context of its task.
#[derive(Debug)]
struct Kept {
    step: Py<PyAny>,
    context: Py<PyAny>,
}

#[pymethods]
impl Steps {
    /// What `call_soon` of the loop is, while an asyncio task is made.
    #[pyo3(signature = (callback, *args, context = None))]
    fn keep<'py>(
        slf: &Bound<'py, Self>,
        callback: Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match context {
            Some(context) if args.is_empty() && is_step(&callback) => {
                let kept = Kept {
                    step: callback.unbind(),
                    context: context.unbind(),
                };
                let is_first = slf.get().kept.borrow(py).is_empty();
                if is_first {
                    Self::call_soon(slf)?;
                }
                slf.get().kept.borrow(py).push(kept);
                Ok(py.None().into_bound(py))
            }
            context => {
                let keywords = PyDict::new(py);
                keywords.set_item(intern!(py, "context"), context)?;
                let all: Vec<_> = std::iter::once(callback).chain(args).collect();
                let call_soon = slf.get().call_soon.bind(py);
                call_soon.call(PyTuple::new(py, all)?, Some(&keywords))
            }
        }
    }

    /// Takes all of them.
    fn take(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let mut kept = std::mem::take(&mut *slf.get().kept.borrow(py)).into_iter();
        while let Some(Kept { step, context }) = kept.next() {
            let context = context.into_bound(py);
            let stepped =
                InContext::enter(&context).and_then(|_context| step.bind(py).call0().map(drop));
            if let Err(error) = stepped {
                // The loop makes of it what it makes of any callback's, and the others have another.
                Self::put_back(slf, kept)?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.call_soon)?;
        visit.call(&self.context)?;
        gc::show(&visit, |see| {
            for kept in self.kept.peek_for_gc().iter().flat_map(|kept| kept.iter()) {
                see(&kept.step)?;
                see(&kept.context)?;
            }
            Ok(())
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let kept = std::mem::take(&mut *self.kept.borrow(py));
        drop(kept);
    }
}

impl Steps {
    /// Has the loop call [`Steps::take`].
    fn call_soon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), &this.context)?;
        let take = slf.getattr(intern!(py, "take"))?;
        this.call_soon.bind(py).call((take,), Some(&keywords))?;
        Ok(())
    }

    /// Some come after all, before those that were kept since.
    #[cold]
    fn put_back(slf: &Bound<'_, Self>, steps: impl Iterator<Item = Kept>) -> PyResult<()> {
        let is_called = {
            let mut kept = slf.get().kept.borrow(slf.py());
            let is_called = !kept.is_empty();
            kept.splice(0..0, steps);
            is_called || kept.is_empty()
        };
        if is_called {
            Ok(())
        } else {
            Self::call_soon(slf)
        }
    }
}

/// Whether it is what a task asks its loop to call for its first step.
fn is_step(callback: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the name of a live object's type lives as long.
    let name = unsafe { std::ffi::CStr::from_ptr((*callback.get_type_ptr()).tp_name) };
    name == c"TaskStepMethWrapper"
}

/// A loop whose `call_soon` may be replaced.
#[derive(Debug)]
pub(super) struct Replaceable {
    attributes: Py<PyDict>,
    /// [`Steps::keep`].
    keep: Py<PyAny>,
}

impl Replaceable {
    /// That of this loop, if it may; `context` is for the callback that takes the steps.
    pub(super) fn of(event_loop: &Bound<'_, PyAny>, context: &Py<PyAny>) -> PyResult<Option<Self>> {
        let py = event_loop.py();
        let own = py
            .import(intern!(py, "asyncio"))?
            .getattr(intern!(py, "BaseEventLoop"))?
            .getattr(NAME)?;
        let class = event_loop.get_type();
        let is_its_own = class.getattr_opt(NAME)?.is_some_and(|its| its.is(&own));
        if !is_its_own || asyncio::is_one_by_one(event_loop)? {
            return Ok(None);
        }
        let attributes = event_loop.getattr(intern!(py, "__dict__"))?;
        let steps = Steps {
            call_soon: event_loop.getattr(NAME)?.unbind(),
            context: context.clone_ref(py),
            kept: GilCell::default(),
        };
        Ok(Some(Self {
            attributes: attributes.cast_into_exact::<PyDict>()?.unbind(),
            keep: Bound::new(py, steps)?
                .getattr(intern!(py, "keep"))?
                .unbind(),
        }))
    }

    /// Replaces it until what this gives is dropped; not if somebody else has.
    #[inline]
    pub(super) fn replace<'a, 'py>(
        &'a self,
        py: Python<'py>,
    ) -> PyResult<Option<Replaced<'a, 'py>>> {
        let attributes = self.attributes.bind(py);
        let name = intern!(py, NAME);
        if attributes.contains(name)? {
            return Ok(None);
        }
        attributes.set_item(name, &self.keep)?;
        Ok(Some(Replaced(attributes)))
    }

    pub(super) fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        see(self.attributes.as_any())?;
        see(&self.keep)
    }
}

/// While this is there, `call_soon` of a loop is that of [`Steps`].
pub(super) struct Replaced<'a, 'py>(&'a Bound<'py, PyDict>);

impl Drop for Replaced<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        let py = self.0.py();
        if let Err(error) = self.0.del_item(intern!(py, NAME)) {
            error.write_unraisable(py, Some(self.0));
        }
    }
}
