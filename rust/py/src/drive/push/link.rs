//! `PushLink`: the base of every push object.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::awaitable::Push;
use super::line::Line;
use crate::buffer::Buffer;
use crate::errors;
use crate::fork::Home;
use crate::gc;
use crate::gil::GilCell;
use crate::kernel::AnyKernel;

/// Where items go from a link.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// A subclass of the user, whose `next_impl` is its sink.
    Unset,
    /// Through a kernel into another push object.
    Stage { sink: Py<PyAny>, kernel: AnyKernel },
    /// Into a list.
    Collect(Py<PyList>),
    /// Into a buffer.
    Queue(Py<Buffer>),
    /// Nowhere any more: the collector cleared it.
    Gone,
}

/// The native part of a push object: `PushObj` and everything derived from it.
#[pyclass(subclass, generic, frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PushLink {
    home: Home,
    /// Nothing is accepted any more.
    closed: AtomicBool,
    outlet: GilCell<Outlet>,
    line: GilCell<Option<Arc<Line>>>,
}

#[pymethods]
impl PushLink {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            home: Home::here(),
            closed: AtomicBool::new(false),
            outlet: GilCell::new(Outlet::Unset),
            line: GilCell::new(None),
        }
    }

    /// `outlet`: the push object below, with the kernel to apply first; or a list, or a buffer; or
    /// nothing.
    #[pyo3(signature = (outlet = None, kernel = None))]
    fn __init__(
        &self,
        py: Python<'_>,
        outlet: Option<&Bound<'_, PyAny>>,
        kernel: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let outlet = match (outlet, kernel) {
            (None, None) => Outlet::Unset,
            (Some(sink), Some(kernel)) => {
                let known = AnyKernel::of(kernel)?;
                if !known.is_one_to_one() {
                    return Err(errors::wrong_type(
                        "kernel",
                        "one of a push operator",
                        kernel,
                    ));
                }
                Outlet::Stage {
                    sink: sink.clone().unbind(),
                    kernel: known,
                }
            }
            (Some(store), None) => {
                if let Ok(list) = store.cast_exact::<PyList>() {
                    Outlet::Collect(list.clone().unbind())
                } else if let Ok(buffer) = store.cast_exact::<Buffer>() {
                    Outlet::Queue(buffer.clone().unbind())
                } else {
                    return Err(errors::wrong_type(
                        "outlet",
                        "a push object with a kernel, a list or a buffer",
                        store,
                    ));
                }
            }
            (None, Some(kernel)) => {
                return Err(errors::wrong_type("kernel", "given with an outlet", kernel));
            }
        };
        let old = std::mem::replace(&mut *self.outlet.borrow(py), outlet);
        drop(old);
        Ok(())
    }

    /// Whether the class overrides any method of the protocol, so that no line may run it in place.
    #[classattr]
    #[pyo3(name = "_is_opaque")]
    fn is_opaque() -> bool {
        false
    }

    /// Whether the class has a `next_impl` of its own.
    #[classattr]
    #[pyo3(name = "_has_own_push")]
    fn has_own_push() -> bool {
        false
    }

    /// Pushes one item; done when what is below has accepted it.
    fn next<'py>(slf: Bound<'py, Self>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Push::make(slf, item)
    }

    /// Pushes one item without waiting, or raises `WouldBlock` that carries it.
    fn next_nowait<'py>(
        slf: &Bound<'py, Self>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let line = Self::open_line(slf, &item)?;
        line.push_now(slf, item)
    }

    /// Whether it was ended.
    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::show(&visit, |see| {
            match self.outlet.peek_for_gc().as_deref() {
                Some(Outlet::Stage { sink, kernel }) => {
                    see(sink)?;
                    see(kernel.as_any())?;
                }
                Some(Outlet::Collect(list)) => see(list.as_any())?,
                Some(Outlet::Queue(buffer)) => see(buffer.as_any())?,
                Some(Outlet::Unset | Outlet::Gone) | None => {}
            }
            match self.line.peek_for_gc().as_deref() {
                Some(Some(line)) if Arc::strong_count(line) == 1 => line.traverse(see),
                // A push that is under way holds it too, and may show it.
                _ => Ok(()),
            }
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let outlet = std::mem::replace(&mut *self.outlet.borrow(py), Outlet::Gone);
        let line = self.line.borrow(py).take();
        drop((outlet, line));
    }
}

impl PushLink {
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Refuses an item if this is closed or was forked away.
    #[inline]
    pub(super) fn check(&self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        self.home.check(item.py(), "push object")?;
        if self.is_closed() {
            Err(refuse(item))
        } else {
            Ok(())
        }
    }

    /// The line that begins here, for an item that may still come in.
    #[inline]
    pub(super) fn open_line(
        link: &Bound<'_, Self>,
        item: &Bound<'_, PyAny>,
    ) -> PyResult<Arc<Line>> {
        let this = link.get();
        this.check(item)?;
        let py = link.py();
        if let Some(line) = &*this.line.borrow(py) {
            return Ok(Arc::clone(line));
        }
        let line = Arc::new(Line::build(link)?);
        *this.line.borrow(py) = Some(Arc::clone(&line));
        Ok(line)
    }

    pub(super) fn outlet(&self, py: Python<'_>) -> Outlet {
        match &*self.outlet.borrow(py) {
            Outlet::Unset => Outlet::Unset,
            Outlet::Stage { sink, kernel } => Outlet::Stage {
                sink: sink.clone_ref(py),
                kernel: kernel.clone_ref(py),
            },
            Outlet::Collect(list) => Outlet::Collect(list.clone_ref(py)),
            Outlet::Queue(buffer) => Outlet::Queue(buffer.clone_ref(py)),
            Outlet::Gone => Outlet::Gone,
        }
    }

    /// Whether a line may run this link in place.
    pub(super) fn can_fuse(link: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(!link
            .get_type()
            .getattr(intern!(link.py(), "_is_opaque"))?
            .is_truthy()?)
    }

    pub(super) fn has_implementation(link: &Bound<'_, Self>) -> PyResult<bool> {
        link.get_type()
            .getattr(intern!(link.py(), "_has_own_push"))?
            .is_truthy()
    }
}

/// The error that gives an item back after the end.
pub(super) fn refuse(item: &Bound<'_, PyAny>) -> PyErr {
    errors::refused(
        item.py(),
        "ClosedError",
        "pushed after the end; the item is in this error's `item`",
        item.clone(),
    )
}

/// Marks a push object as ended. `False` if it was already.
#[pyfunction]
pub(crate) fn end_push(link: &Bound<'_, PushLink>) -> PyResult<bool> {
    let this = link.get();
    this.home.check(link.py(), "push object")?;
    Ok(!this.closed.swap(true, Relaxed))
}
