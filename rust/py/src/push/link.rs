//! `PushLink`: the base of every push object.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::awaitable::Push;
use super::callbacks::Callbacks;
use super::circle;
use super::fan::Fan;
use super::pipeline::{End, Line};
use super::work_stack::{Kept, Todo};
use crate::buffer::Buffer;
use crate::errors;
use crate::kernel::AnyKernel;
use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use crate::object::int_setting::check_int;
use crate::object::iterative_drop::IterativeDrop;
use crate::runtime::fork_guard::ProcessId;

/// Where items go from a link.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// A subclass of the user, whose `next_impl` is its sink.
    Unset,
    /// Through a kernel into another push object.
    Stage {
        kernel: AnyKernel,
        sink: IterativeDrop<PyAny>,
    },
    /// Into a list, of so many items at most.
    Collect(Py<PyList>, Option<usize>),
    /// Into a buffer.
    Queue(Py<Buffer>),
    /// Into callables.
    Call(Py<Callbacks>),
    /// Into many others.
    Fan(Py<Fan>),
    /// Nowhere any more: the collector cleared it.
    Gone,
}

/// How far the end of supply has come.
const OPEN: u8 = 0;
/// Somebody ends it now.
const ENDING: u8 = 1;
/// Whoever ended it was cancelled: nothing comes in, but what it holds has not gone out.
const INTERRUPTED: u8 = 2;
const ENDED: u8 = 3;

/// The native part of a push object: `PushObj` and everything derived from it.
#[pyclass(subclass, generic, frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PushLink {
    home: ProcessId,
    end: AtomicU8,
    line: GilCell<Option<Arc<Line>>>,
    /// What its kernel made of items whose pushes were cancelled below it; it goes before the next
    /// item.
    kept: GilCell<VecDeque<Kept>>,
    has_kept: AtomicBool,
    /// Whether something pushes into it, or did; see [`circle`].
    pub(super) is_attached: AtomicBool,
    /// Dropped last: the way to the next link is in it.
    outlet: GilCell<Outlet>,
}

#[pymethods]
impl PushLink {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            home: ProcessId::current(),
            end: AtomicU8::new(OPEN),
            line: GilCell::new(None),
            kept: GilCell::new(VecDeque::new()),
            has_kept: AtomicBool::new(false),
            is_attached: AtomicBool::new(false),
            outlet: GilCell::new(Outlet::Unset),
        }
    }

    /// `outlet`: the push object below, with the kernel to apply first; or a list, and how many items
    /// it may hold; or a buffer, callbacks or a fan; or nothing.
    #[pyo3(signature = (outlet = None, kernel = None, *, maxsize = None))]
    fn __init__(
        slf: &Bound<'_, Self>,
        outlet: Option<&Bound<'_, PyAny>>,
        kernel: Option<&Bound<'_, PyAny>>,
        maxsize: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let maxsize = maxsize
            .map(|maxsize| check_int("maxsize", 1, maxsize))
            .transpose()?
            .map(|maxsize| usize::try_from(maxsize).unwrap_or(usize::MAX));
        let leads = match (outlet, kernel) {
            (None, None) => Outlet::Unset,
            (Some(sink), Some(kernel)) => {
                circle::attach(sink);
                Outlet::Stage {
                    kernel: AnyKernel::of(kernel)?,
                    sink: sink.clone().unbind().into(),
                }
            }
            (Some(store), None) => {
                if let Ok(list) = store.cast_exact::<PyList>() {
                    Outlet::Collect(list.clone().unbind(), maxsize)
                } else if let Ok(buffer) = store.cast_exact::<Buffer>() {
                    Outlet::Queue(buffer.clone().unbind())
                } else if let Ok(callbacks) = store.cast_exact::<Callbacks>() {
                    Outlet::Call(callbacks.clone().unbind())
                } else if let Ok(fan) = store.cast_exact::<Fan>() {
                    Outlet::Fan(fan.clone().unbind())
                } else {
                    return Err(errors::wrong_type(
                        "outlet",
                        "a push object with a kernel, a list, a buffer, callbacks or a fan",
                        store,
                    ));
                }
            }
            (None, Some(kernel)) => {
                return Err(errors::wrong_type("kernel", "given with an outlet", kernel));
            }
        };
        let old = std::mem::replace(&mut *this.outlet.borrow(py), leads);
        if circle::leads_to_itself(slf) {
            let circular = std::mem::replace(&mut *this.outlet.borrow(py), old);
            drop(circular);
            return Err(circle::refusal(slf, outlet.unwrap_or(slf)));
        }
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
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let line = Self::open_line(slf, item)?;
        line.push_now(slf, item)
    }

    /// Whether it was ended.
    #[getter]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            match self.outlet.peek_for_gc().as_deref() {
                Some(Outlet::Stage { sink, kernel }) => {
                    visit(sink)?;
                    visit(kernel.as_any())?;
                }
                Some(Outlet::Collect(list, _)) => visit(list.as_any())?,
                Some(Outlet::Queue(buffer)) => visit(buffer.as_any())?,
                Some(Outlet::Call(callbacks)) => visit(callbacks.as_any())?,
                Some(Outlet::Fan(fan)) => visit(fan.as_any())?,
                Some(Outlet::Unset | Outlet::Gone) | None => {}
            }
            if let Some(kept) = self.kept.peek_for_gc() {
                kept.iter().try_for_each(|kept| kept.traverse(visit))?;
            }
            match self.line.peek_for_gc().as_deref() {
                Some(Some(line)) if Arc::strong_count(line) == 1 => line.traverse(visit),
                // A push that is under way holds it too, and may show it.
                _ => Ok(()),
            }
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let outlet = std::mem::replace(&mut *self.outlet.borrow(py), Outlet::Gone);
        let line = self.line.borrow(py).take();
        let kept = self.take_kept(py);
        // The outlet last, as in a deallocator.
        drop((line, kept, outlet));
    }
}

impl PushLink {
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.end.load(Relaxed) != OPEN
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

    /// Whether an item may come in; one that was flushed above also while this is being ended.
    #[inline]
    pub(super) fn is_open_for(&self, py: Python<'_>, is_flush: bool) -> PyResult<bool> {
        self.home.check(py, "push object")?;
        let end = self.end.load(Relaxed);
        Ok(end == OPEN || (is_flush && end != ENDED))
    }

    /// Lets nothing more in.
    pub(super) fn begin_end(&self) {
        if self.end.load(Relaxed) == OPEN {
            self.end.store(ENDING, Relaxed);
        }
    }

    /// Whether something is kept here that goes before the next item.
    #[inline]
    pub(super) fn has_kept(&self) -> bool {
        self.has_kept.load(Relaxed)
    }

    /// Keeps what came out of its kernel and was not delivered.
    pub(super) fn keep(&self, py: Python<'_>, what: Kept) {
        self.kept.borrow(py).push_front(what);
        self.has_kept.store(true, Relaxed);
    }

    pub(super) fn take_kept(&self, py: Python<'_>) -> VecDeque<Kept> {
        self.has_kept.store(false, Relaxed);
        std::mem::take(&mut *self.kept.borrow(py))
    }

    /// The buffer that an item goes into as it is, where nothing has to be seen to on its way.
    #[inline]
    pub(super) fn straight(&self, py: Python<'_>) -> Option<Py<Buffer>> {
        if self.is_closed() || !self.home.is_current() {
            return None;
        }
        match self.line.borrow(py).as_deref() {
            Some(Line {
                stages,
                end: End::Queue(buffer),
                ..
            }) if stages.is_empty() && buffer.get().is_plain() => Some(buffer.clone_ref(py)),
            _ => None,
        }
    }

    /// The line that begins here, for an item that may still come in.
    #[inline]
    pub(super) fn open_line(
        link: &Bound<'_, Self>,
        item: &Bound<'_, PyAny>,
    ) -> PyResult<Arc<Line>> {
        link.get().check(item)?;
        Self::line(link)
    }

    /// The line that begins here.
    #[inline]
    pub(super) fn line(link: &Bound<'_, Self>) -> PyResult<Arc<Line>> {
        let this = link.get();
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
                kernel: kernel.clone_ref(py),
                sink: sink.clone_ref(py).into(),
            },
            Outlet::Collect(list, maxsize) => Outlet::Collect(list.clone_ref(py), *maxsize),
            Outlet::Queue(buffer) => Outlet::Queue(buffer.clone_ref(py)),
            Outlet::Call(callbacks) => Outlet::Call(callbacks.clone_ref(py)),
            Outlet::Fan(fan) => Outlet::Fan(fan.clone_ref(py)),
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

/// Begins to end a push object: nothing more comes in. `False` if that is under way or done.
#[pyfunction]
pub(crate) fn end_push(link: &Bound<'_, PushLink>) -> PyResult<bool> {
    let this = link.get();
    this.home.check(link.py(), "push object")?;
    let is_mine = matches!(this.end.load(Relaxed), OPEN | INTERRUPTED);
    if is_mine {
        this.end.store(ENDING, Relaxed);
    }
    Ok(is_mine)
}

/// What `end_push` began is over: it ended, or is to be begun again. So have the links that a flush
/// went through.
#[pyfunction]
pub(crate) fn settle_push(link: &Bound<'_, PushLink>, ended: bool) {
    let settle = |link: &PushLink| {
        if link.end.load(Relaxed) == ENDING {
            link.end
                .store(if ended { ENDED } else { INTERRUPTED }, Relaxed);
        }
    };
    let this = link.get();
    settle(this);
    let line = this.line.borrow(link.py()).as_ref().map(Arc::clone);
    if let Some(line) = line {
        for stage in &line.stages {
            settle(stage.bind(link).get());
        }
    }
}

/// Delivers what the line from here still holds, and lets nothing more in. Awaited, it gives the push
/// object in which the line ends.
#[pyfunction]
pub(crate) fn flush_push<'py>(link: &Bound<'py, PushLink>) -> PyResult<Bound<'py, PyAny>> {
    Push::flush(link)
}

/// Drops what the line from here still holds, and lets nothing more in. Gives the push object in
/// which the line ends.
#[pyfunction]
pub(crate) fn drop_push<'py>(link: &Bound<'py, PushLink>) -> PyResult<Bound<'py, PyAny>> {
    let line = PushLink::line(link)?;
    let mut todo = Todo::flush();
    for number in 0..line.stages.len() {
        line.flush_stage(link, &mut todo, number);
    }
    drop(todo);
    Ok(line.tail(link))
}
