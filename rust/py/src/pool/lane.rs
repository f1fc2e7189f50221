//! The lane of plain tasks: those whose terms ask for nothing but a cost and a key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit, ffi};

use super::envelope::{Envelope, final_kind};
use super::feed::Feed;
use super::meter::Meter;
use super::take::Unread;
use super::work::Work;
use crate::asyncio;
use crate::awaitable::{Native, inner};
use crate::drive::merge::identity::{Entered, InContext};
use crate::gc;
use crate::gil::GilCell;

/// A plain task that was called and has not ended.
#[derive(Debug)]
struct Live {
    /// Not there in its first step.
    task: Option<Py<PyAny>>,
    /// Whether it was asked to stop before it had.
    disturbed: bool,
}

/// See the [module](super).
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Lane {
    /// What it leaves to Python, by name: `leased`, `raised`, `rest`, `idle`.
    python: Py<PyAny>,
    name: String,
    source: Py<PyAny>,
    /// `try_acquire` of the capacity.
    acquire: Py<PyAny>,
    event_loop: Py<PyAny>,
    clock: Py<PyAny>,
    /// The context of the run, for bare callables.
    context: Py<PyAny>,
    unread: Py<Unread>,
    most: usize,
    /// The next task id comes out of it.
    ids: Py<PyAny>,
    /// Who has which key; of a plain task its id.
    keys: Py<PyDict>,
    meter: Py<Meter>,
    task_class: Py<PyType>,
    /// The keyword arguments of every asyncio task.
    keywords: Py<PyDict>,
    /// Whether CPython starts a task eagerly by itself.
    is_eager: bool,
    live: GilCell<HashMap<u64, Live>>,
    /// Whether tasks may be taken up now, for all that Python knows.
    open: AtomicBool,
    /// Whether somebody waits until nothing is live.
    watched: AtomicBool,
}

/// Everything that a task of the lane keeps between its call and its end.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) key: Option<Py<PyAny>>,
    pub(super) lease: Py<PyAny>,
    /// When it was taken up, and called: they are one moment here.
    pub(super) called: f64,
}

#[pymethods]
impl Lane {
    #[new]
    #[pyo3(signature = (python, *, name, source, acquire, event_loop, clock, context, unread, most, ids, keys, meter, task_class))]
    #[expect(clippy::too_many_arguments, reason = "it is a part of the run")]
    fn new(
        py: Python<'_>,
        python: Py<PyAny>,
        name: String,
        source: Py<PyAny>,
        acquire: Py<PyAny>,
        event_loop: Py<PyAny>,
        clock: Py<PyAny>,
        context: Py<PyAny>,
        unread: Py<Unread>,
        most: usize,
        ids: Py<PyAny>,
        keys: Py<PyDict>,
        meter: Py<Meter>,
        task_class: Py<PyType>,
    ) -> PyResult<Self> {
        let is_eager = py.version_info() >= (3, 12);
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "loop"), &event_loop)?;
        if is_eager {
            keywords.set_item(intern!(py, "eager_start"), true)?;
        }
        Ok(Self {
            python,
            name,
            source,
            acquire,
            event_loop,
            clock,
            context,
            unread,
            most,
            ids,
            keys,
            meter,
            task_class,
            keywords: keywords.unbind(),
            is_eager,
            live: GilCell::default(),
            open: AtomicBool::new(false),
            watched: AtomicBool::new(false),
        })
    }

    /// Pulls and calls plain tasks. Gives the first item that is none, or that cannot be called now; or the lane itself
    /// if nothing may be pulled now. Raises what the source raises.
    ///
    /// A cancelled one has lost nothing.
    fn feed(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(slf.py(), || Feed::new(slf.unbind()))
    }

    #[getter]
    fn open(&self) -> bool {
        self.open.load(Relaxed)
    }

    #[setter]
    fn set_open(&self, open: bool) {
        self.open.store(open, Relaxed);
    }

    /// How many tasks of it run.
    #[getter]
    fn live(&self, py: Python<'_>) -> usize {
        self.live.borrow(py).len()
    }

    /// Whether tasks of it run; if so, `idle` is called when none does any more.
    fn watch(&self, py: Python<'_>) -> bool {
        let runs = !self.live.borrow(py).is_empty();
        self.watched.store(runs, Relaxed);
        runs
    }

    /// Whether the caller is a task of the lane.
    fn inside(&self, py: Python<'_>) -> bool {
        let current = asyncio::current_task(py);
        let live = self.live.borrow(py);
        live.values().any(|live| match (&live.task, &current) {
            // Whoever asks is called by it: nothing else runs during its first step.
            (None, _) => true,
            (Some(task), Some(current)) => current.is(task),
            (Some(_), None) => false,
        })
    }

    /// Whether a task is live, and was asked to stop.
    fn is_disturbed(&self, py: Python<'_>, task_id: u64) -> bool {
        let live = self.live.borrow(py);
        live.get(&task_id).is_some_and(|live| live.disturbed)
    }

    /// Cancels a task; whether it is one of the lane.
    fn cancel(&self, py: Python<'_>, task_id: u64) -> PyResult<bool> {
        let task = {
            let mut live = self.live.borrow(py);
            let Some(live) = live.get_mut(&task_id) else {
                return Ok(false);
            };
            if live.disturbed {
                return Ok(true);
            }
            live.disturbed = true;
            live.task.as_ref().map(|task| task.clone_ref(py))
        };
        // In its first step it is cancelled when that is over: see `launch`.
        if let Some(task) = task {
            let reached = task.bind(py).call_method0(intern!(py, "cancel"))?;
            if !reached.is_truthy()? {
                let mut live = self.live.borrow(py);
                if let Some(live) = live.get_mut(&task_id) {
                    live.disturbed = false;
                }
            }
        }
        Ok(true)
    }

    /// Cancels all that run.
    fn cancel_all(&self, py: Python<'_>) -> PyResult<()> {
        let mut ids: Vec<_> = self.live.borrow(py).keys().copied().collect();
        // In the order in which they were called.
        ids.sort_unstable();
        for id in ids {
            self.cancel(py, id)?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::show(&visit, |see| {
            for held in [
                &self.python,
                &self.source,
                &self.acquire,
                &self.event_loop,
                &self.clock,
                &self.context,
                &self.ids,
            ] {
                see(held)?;
            }
            see(self.unread.as_any())?;
            see(self.keys.as_any())?;
            see(self.keywords.as_any())?;
            if let Some(live) = self.live.peek_for_gc() {
                for task in live.values().filter_map(|live| live.task.as_ref()) {
                    see(task)?;
                }
            }
            Ok(())
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let live = std::mem::take(&mut *self.live.borrow(py));
        drop(live);
    }
}

impl Lane {
    /// The next pull of the source, not started.
    #[inline]
    pub(super) fn pull<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.source.bind(py).call_method0(intern!(py, "__anext__"))
    }

    /// Whether a task may be called now.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        let unread = self.unread.get();
        self.open.load(Relaxed)
            && !unread.contested.load(Relaxed)
            && unread.buffer.get().core().len() < self.most
    }

    #[inline]
    pub(super) fn now(&self, py: Python<'_>) -> PyResult<f64> {
        self.clock.bind(py).call0()?.extract()
    }

    /// Has a plain task called, if its capacity is free; else it is left to Python, which says what is the matter.
    pub(super) fn launch(slf: &Bound<'_, Self>, item: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let py = item.py();
        let this = slf.get();
        let (fn_, args, key, cost, context) = if item.get_type().is(&this.task_class) {
            if !item.getattr(intern!(py, "is_plain"))?.is_truthy()? {
                return Ok(None);
            }
            let key = item.getattr(intern!(py, "key"))?;
            if !key.is_none() && this.keys.bind(py).contains(&key)? {
                return Ok(None);
            }
            let args = item.getattr(intern!(py, "args"))?.cast_into::<PyTuple>()?;
            (
                item.getattr(intern!(py, "fn"))?,
                (!args.is_empty()).then_some(args),
                (!key.is_none()).then_some(key),
                Some(item.getattr(intern!(py, "cost"))?),
                item.getattr(intern!(py, "context"))?,
            )
        } else if item.is_callable() && !item.is_instance(this.task_class.bind(py))? {
            (
                item.clone(),
                None,
                None,
                None,
                this.context.bind(py).clone(),
            )
        } else {
            return Ok(None);
        };
        // A key that cannot be printed is left to Python too.
        let Ok(name) = key.as_ref().map(PyAnyMethods::str).transpose() else {
            return Ok(None);
        };
        let acquire = this.acquire.bind(py);
        let lease = match &cost {
            None => acquire.call0(),
            Some(cost) => acquire.call1((cost,)),
        };
        let Ok(lease) = lease else {
            return Ok(None);
        };
        if lease.is_none() {
            return Ok(None);
        }
        let id: u64 = this
            .ids
            .bind(py)
            .call_method0(intern!(py, "__next__"))?
            .extract()?;
        if let Some(key) = &key {
            this.keys.bind(py).set_item(key, id)?;
        }
        let called = this.now(py)?;
        // What a bare number holds there is nothing to settle of, so that only the others pay for reaching it.
        let is_reachable = cost.is_some_and(|cost| {
            !(cost.is_instance_of::<PyInt>() || cost.is_instance_of::<PyFloat>())
        });
        let context = if is_reachable {
            this.python
                .bind(py)
                .call_method1(intern!(py, "leased"), (context, &lease))?
        } else {
            // SAFETY: attached, and a live object; a context is what a `Task` and a run hold.
            unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(context.as_ptr()))? }
        };
        let name = match name {
            None => PyString::new(py, &format!("{}: task {id}", this.name)),
            Some(name) => PyString::new(py, &format!("{}: task {name}", this.name)),
        };
        let ticket = Ticket {
            id,
            key: key.map(Bound::unbind),
            lease: lease.unbind(),
            called,
        };
        this.start(slf, fn_, args, ticket, name, &context)?;
        Ok(Some(called))
    }

    /// Makes the asyncio task and has it do its first step.
    fn start<'py>(
        &self,
        slf: &Bound<'py, Self>,
        fn_: Bound<'py, PyAny>,
        args: Option<Bound<'py, PyTuple>>,
        ticket: Ticket,
        name: Bound<'py, PyString>,
        context: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        static TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let id = ticket.id;
        let class = TASK.get_or_try_init(py, || {
            PyResult::Ok(py.import("asyncio")?.getattr("Task")?.unbind())
        })?;
        let work = Native::alloc(py, || {
            Work::new(
                slf.clone().unbind(),
                fn_.unbind(),
                args.map(Bound::unbind),
                ticket,
                !self.is_eager,
            )
        })?;
        self.live.borrow(py).insert(
            id,
            Live {
                task: None,
                disturbed: false,
            },
        );
        let keywords = self.keywords.bind(py).copy()?;
        keywords.set_item(intern!(py, "name"), name)?;
        keywords.set_item(intern!(py, "context"), context)?;
        let task = class.bind(py).call((&work,), Some(&keywords))?;
        if !self.is_eager {
            let event_loop = self.event_loop.bind(py);
            let mut entered = Entered::default();
            entered.enter(event_loop, task.clone(), true)?;
            let _context = InContext::enter(context)?;
            // What came of it the task will find when it is stepped.
            inner::send(&work, py.None().bind(py))?;
        }
        let disturbed = {
            let mut live = self.live.borrow(py);
            live.get_mut(&id).is_some_and(|live| {
                live.task = Some(task.clone().unbind());
                live.disturbed
            })
        };
        if disturbed {
            task.call_method0(intern!(py, "cancel"))?;
        }
        Ok(())
    }

    /// The work of a task has really stopped. Gives whether it was asked to.
    fn stopped(&self, py: Python<'_>, ticket: &Ticket) -> PyResult<bool> {
        let live = self.live.borrow(py).remove(&ticket.id);
        if let Some(key) = &ticket.key {
            self.keys.bind(py).del_item(key)?;
        }
        ticket.lease.bind(py).call_method0(intern!(py, "release"))?;
        Ok(live.is_some_and(|live| live.disturbed))
    }

    /// It ended with a value.
    pub(super) fn returned(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.stopped(py, &ticket)?;
        let now = self.now(py)?;
        self.meter.get().note(py, now, false);
        let envelope = Envelope {
            task_id: ticket.id,
            key: ticket.key,
            kind: final_kind(py)?.clone_ref(py),
            value: Some(value.clone().unbind()),
            error: None,
            attempt: 1,
            queued: ticket.called,
            started: Some(ticket.called),
            finished: Some(now),
        };
        let envelope = Bound::new(py, envelope)?.into_any();
        self.unread.get().put(py, envelope)?;
        self.over(py)
    }

    /// It ended with an error. Python tells of it, and says whether the asyncio task is to raise it too.
    pub(super) fn raised(&self, py: Python<'_>, ticket: Ticket, error: &PyErr) -> PyResult<bool> {
        let disturbed = self.stopped(py, &ticket)?;
        let raises = self
            .python
            .bind(py)
            .call_method1(
                intern!(py, "raised"),
                (
                    ticket.id,
                    ticket.key,
                    ticket.called,
                    error.value(py),
                    disturbed,
                ),
            )?
            .is_truthy()?;
        self.over(py)?;
        Ok(raises)
    }

    /// The coroutine that brings something to its end that is awaitable or yields, and is no coroutine.
    pub(super) fn rest<'py>(
        &self,
        result: Bound<'py, PyAny>,
        ticket: &Ticket,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = result.py();
        self.python.bind(py).call_method1(
            intern!(py, "rest"),
            (
                result,
                ticket.id,
                ticket.key.as_ref().map(|key| key.clone_ref(py)),
                ticket.called,
            ),
        )
    }

    fn over(&self, py: Python<'_>) -> PyResult<()> {
        if self.watched.load(Relaxed) && self.live.borrow(py).is_empty() {
            self.watched.store(false, Relaxed);
            self.python.bind(py).call_method0(intern!(py, "idle"))?;
        }
        Ok(())
    }
}
