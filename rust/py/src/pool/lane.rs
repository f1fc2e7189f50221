//! The lane of plain tasks: those whose terms ask for nothing but a cost and a key.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyType};
use pyo3::{PyTraverseError, PyVisit, ffi};

use super::body::Call;
use super::crew::Crew;
use super::feed::Feed;
use super::ids::Ids;
use super::maker::{self, Maker, Options};
use super::meter::Meter;
use super::roll::Roll;
use super::take::Unread;
use super::terms::Terms;
use super::ticket::Ticket;
use super::waiting::Waiting;
use super::work::Work;
use super::worker::Job;
use crate::capacity::{CapacityClient, Next, PyPermitPrefetch, RunUsage, TaskPermit, is_number};
use crate::coroutine::{Native, delegate};
use crate::merge::task_context::TaskGuard;
use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use crate::pull::control::as_link;
use crate::pull::link::PyPullLink;
use crate::runtime::asyncio::InContext;
use crate::runtime::clock::Clock;

/// See the [module](super).
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Lane {
    /// What it leaves to Python, by name: `leased`, `raised`, `refused`, `rest`, `idle`, `own`.
    pub(super) python: Py<PyAny>,
    name: String,
    source: Py<PyAny>,
    /// The same, if it is a link that is pulled as any link is.
    link: Option<Py<PyPullLink>>,
    pub(super) granter: CapacityClient,
    event_loop: Py<PyAny>,
    clock: Clock,
    /// The context of the run, for bare callables.
    context: Py<PyAny>,
    pub(super) unread: Py<Unread>,
    most: usize,
    ids: Py<Ids>,
    /// Who has which key; of a plain task its id.
    pub(super) keys: Py<PyDict>,
    pub(super) meter: Py<Meter>,
    task_class: Py<PyType>,
    /// What makes asyncio tasks of their own.
    maker: Maker,
    /// Whether each has an asyncio task of its own.
    is_isolated: bool,
    pub(super) crew: GilCell<Crew>,
    /// Whether CPython starts a task eagerly by itself.
    is_eager: bool,
    pub(super) roll: Roll,
    /// The task that waits for its capacity.
    pub(super) waiting: GilCell<Option<Waiting>>,
    /// Whether tasks may be taken up now, for all that Python knows.
    open: AtomicBool,
    /// Whether somebody waits until nothing is live.
    pub(super) watched: AtomicBool,
}

/// What became of an item.
#[derive(Debug)]
pub(super) enum Launch {
    /// It was called, at this time.
    Called(f64),
    /// It is plain, and waits for its capacity.
    Waits,
    /// It has its error.
    Refused,
    /// It is Python's.
    Left,
}

#[pymethods]
impl Lane {
    #[new]
    #[pyo3(signature = (python, *, name, source, capacity, asks, event_loop, clock, context, unread, most, ids, keys, meter, task_class, isolate))]
    #[expect(clippy::too_many_arguments, reason = "it is a part of the run")]
    fn new(
        py: Python<'_>,
        python: Py<PyAny>,
        name: String,
        source: Py<PyAny>,
        capacity: &Bound<'_, PyAny>,
        asks: Py<PyPermitPrefetch>,
        event_loop: Py<PyAny>,
        clock: &Bound<'_, PyAny>,
        context: Py<PyAny>,
        unread: Py<Unread>,
        most: usize,
        ids: Py<Ids>,
        keys: Py<PyDict>,
        meter: Py<Meter>,
        task_class: Py<PyType>,
        isolate: bool,
    ) -> PyResult<Self> {
        let is_eager = py.version_info() >= (3, 12);
        Ok(Self {
            python,
            name,
            link: as_link(source.bind(py)).map(Bound::unbind),
            source,
            granter: CapacityClient::new(capacity, asks)?,
            event_loop,
            clock: Clock::of(clock)?,
            context,
            unread,
            most,
            ids,
            keys,
            meter,
            task_class,
            maker: Maker::default(),
            is_isolated: isolate,
            crew: GilCell::default(),
            is_eager,
            roll: Roll::default(),
            waiting: GilCell::default(),
            open: AtomicBool::new(false),
            watched: AtomicBool::new(false),
        })
    }

    /// Pulls and calls plain tasks. Gives the first item that is none, or that cannot be called now; or the lane itself
    /// if nothing may be pulled now. Raises what the source raises.
    ///
    /// A cancelled one has lost nothing.
    fn feed(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let py = slf.py();
        Native::alloc(py, || Feed::new(py, slf.unbind()))
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
        self.roll.len(py)
    }

    /// Whether tasks of it run; if so, `idle` is called when none does any more.
    fn watch(&self, py: Python<'_>) -> bool {
        let runs = self.roll.len(py) > 0;
        self.watched.store(runs, Relaxed);
        runs
    }

    /// Whether the caller is a task of the lane.
    fn inside(&self, py: Python<'_>) -> bool {
        self.roll.inside(py)
    }

    /// Whether a task is live, and was asked to stop.
    fn is_disturbed(&self, py: Python<'_>, task_id: u64) -> bool {
        self.roll.is_disturbed(py, task_id)
    }

    /// Cancels a task; whether it is one of the lane.
    fn cancel(&self, py: Python<'_>, task_id: u64) -> PyResult<bool> {
        self.roll.cancel(py, task_id)
    }

    /// Cancels all that run.
    fn cancel_all(&self, py: Python<'_>) -> PyResult<()> {
        self.roll.cancel_all(py)
    }

    /// How many tasks were taken up and wait for their capacity: one at most.
    #[getter]
    fn waits(&self, py: Python<'_>) -> usize {
        usize::from(self.waiting.borrow(py).is_some())
    }

    /// Takes out the task that waits for its capacity, or only the one of this number: its item, its number and when it was taken up.
    #[pyo3(signature = (task_id = None))]
    fn withdraw(
        &self,
        py: Python<'_>,
        task_id: Option<u64>,
    ) -> PyResult<Option<(Py<PyAny>, u64, f64)>> {
        Waiting::withdraw(self, py, task_id)
    }

    /// Has a plain task called that had to wait for its capacity, which is held now; or says that Python is to.
    #[pyo3(name = "launch")]
    fn launch_granted(
        slf: &Bound<'_, Self>,
        item: &Bound<'_, PyAny>,
        task_id: u64,
        queued: f64,
        lease: Py<PyAny>,
    ) -> PyResult<bool> {
        let this = slf.get();
        let Some(terms) = this.terms(item)? else {
            return Ok(false);
        };
        let ticket = Ticket {
            id: task_id,
            key: terms.key.as_ref().map(|key| key.clone().unbind()),
            grant: TaskPermit::Lease(lease),
            queued,
            called: this.now(slf.py())?,
        };
        Self::begin(slf, terms, ticket)?;
        Ok(true)
    }

    /// The turn of the loop that some wait for has come: see [`Crew`].
    fn turn(slf: &Bound<'_, Self>) -> PyResult<()> {
        Crew::turn(slf)
    }

    /// Has the workers end, when nothing will be called any more; gives their asyncio tasks, to wait for.
    fn dismiss<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        Crew::end(slf)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            for held in [&self.python, &self.source, &self.event_loop, &self.context] {
                visit(held)?;
            }
            if let Some(clock) = self.clock.callable() {
                visit(clock)?;
            }
            self.granter.traverse(visit)?;
            if let Some(link) = &self.link {
                visit(link.as_any())?;
            }
            visit(self.unread.as_any())?;
            visit(self.keys.as_any())?;
            self.maker.traverse(visit)?;
            if let Some(crew) = self.crew.peek_for_gc() {
                crew.traverse(visit)?;
            }
            if let Some(Some(waiting)) = self.waiting.peek_for_gc().as_deref() {
                waiting.traverse(visit)?;
            }
            self.roll.traverse(visit)
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        self.roll.clear(py);
        let crew = std::mem::take(&mut *self.crew.borrow(py));
        let waiting = self.waiting.borrow(py).take();
        drop((crew, waiting));
    }
}

impl Lane {
    #[inline]
    pub(super) fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.event_loop.bind(py)
    }

    /// Has a method of its own called in the next turn of the loop.
    pub(super) fn call_soon(
        &self,
        slf: &Bound<'_, Self>,
        method: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        let py = slf.py();
        let keywords = PyDict::new(py);
        // Not that of whoever happens to run.
        keywords.set_item(intern!(py, "context"), &self.context)?;
        let callback = slf.getattr(method)?;
        (self.event_loop(py))
            .call_method(intern!(py, "call_soon"), (callback,), Some(&keywords))
            .map(drop)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The source, if it is a link that is pulled as any link is.
    #[inline]
    pub(super) fn link<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyPullLink>> {
        self.link.as_ref().map(|link| link.bind(py))
    }

    /// Whether an asyncio task lives until the loop turns, though the task may have ended when it was called.
    #[inline]
    pub(super) fn piles_up(&self) -> bool {
        self.is_isolated && !self.is_eager
    }

    /// The next pull of any other source, not started.
    #[inline]
    pub(super) fn pull<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        delegate::next(self.source.bind(py))
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
        self.clock.now(py)
    }

    /// Has a plain task called, if its capacity is free, or wait for that; what is no plain task, or can never be called, is
    /// left to Python, which says what is the matter.
    pub(super) fn launch(slf: &Bound<'_, Self>, item: &Bound<'_, PyAny>) -> PyResult<Launch> {
        let py = item.py();
        let this = slf.get();
        let Some(terms) = this.terms(item)? else {
            return Ok(Launch::Left);
        };
        // Also where a key cannot be looked up: Python has it fail.
        if let Some(key) = &terms.key
            && !matches!(this.keys.bind(py).contains(key), Ok(false))
        {
            return Ok(Launch::Left);
        }
        let least = || RunUsage {
            running: this.roll.len(py),
            waiting: 0,
        };
        let own = || this.own(py);
        let grant = match this.granter.next(py, terms.cost.as_ref(), least, own) {
            Ok(Next::Granted(grant)) => grant,
            Ok(Next::Pending(acquiring)) => return this.wait(item, acquiring),
            // An error Python finds again when it asks.
            Ok(Next::Unsupported) => return Ok(Launch::Left),
            Err(error) if error.is_instance_of::<PyException>(py) => return Ok(Launch::Left),
            Err(error) => return this.refuse(item, error),
        };
        let called = this.now(py)?;
        let ticket = Ticket {
            id: this.ids.get().next(),
            key: terms.key.as_ref().map(|key| key.clone().unbind()),
            grant,
            queued: called,
            called,
        };
        Self::begin(slf, terms, ticket)?;
        Ok(Launch::Called(called))
    }

    /// What the run has of its node, with what went the long way.
    #[cold]
    fn own(&self, py: Python<'_>) -> PyResult<RunUsage> {
        let own = self.python.bind(py).call_method0(intern!(py, "own"))?;
        let (running, waiting) = own.extract()?;
        Ok(RunUsage { running, waiting })
    }

    /// A task cannot be called: its cost raised what may not be asked for a second time, since it cancels somebody or ends the program.
    #[cold]
    fn refuse(&self, item: &Bound<'_, PyAny>, error: PyErr) -> PyResult<Launch> {
        let py = item.py();
        let error = error.into_value(py);
        (self.python.bind(py))
            .call_method1(intern!(py, "refused"), (item, error))
            .map(|_| Launch::Refused)
    }

    /// Has a task wait for its capacity.
    #[cold]
    fn wait(&self, item: &Bound<'_, PyAny>, acquiring: Bound<'_, PyAny>) -> PyResult<Launch> {
        let py = item.py();
        let waiting = Waiting {
            item: item.clone().unbind(),
            id: self.ids.get().next(),
            queued: self.now(py)?,
            acquiring: acquiring.unbind(),
            awaited: None,
        };
        *self.waiting.borrow(py) = Some(waiting);
        Ok(Launch::Waits)
    }

    /// Has a task called that waited, and has its capacity now.
    pub(super) fn launch_waiting(
        slf: &Bound<'_, Self>,
        waiting: &Waiting,
        grant: TaskPermit,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let terms = (this.terms(waiting.item.bind(py))?).expect("it was a plain task before");
        let ticket = Ticket {
            id: waiting.id,
            key: terms.key.as_ref().map(|key| key.clone().unbind()),
            grant,
            queued: waiting.queued,
            called: this.now(py)?,
        };
        Self::begin(slf, terms, ticket)
    }

    fn terms<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Option<Terms<'py>>> {
        Terms::of(item, self.task_class.bind(item.py()), self.is_isolated)
    }

    /// Has a plain task called, whose capacity is held.
    fn begin(slf: &Bound<'_, Self>, terms: Terms<'_>, ticket: Ticket) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if let Some(key) = &terms.key
            && let Err(error) = this.keys.bind(py).set_item(key, ticket.id)
        {
            return this.raised(py, ticket, &error).map(drop);
        }
        let context = match &terms.context {
            Some(context) => context,
            None => this.context.bind(py),
        };
        // What a bare number holds there is nothing to settle of, so that only the others pay for reaching it.
        let reachable = (ticket.grant.lease())
            .filter(|_| terms.cost.as_ref().is_some_and(|cost| !is_number(cost)));
        let context = match reachable {
            Some(lease) => this
                .python
                .bind(py)
                .call_method1(intern!(py, "leased"), (context, lease))?,
            // SAFETY: attached, and a live object; a context is what a `Task` and a run hold.
            None => unsafe {
                Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(context.as_ptr()))?
            },
        };
        if this.is_isolated {
            let name = match terms.shown {
                None => maker::name_of(py, &this.name, ticket.id),
                Some(name) => PyString::new(py, &format!("{}: task {name}", this.name)),
            };
            return this.start(slf, terms.call, ticket, &name, &context);
        }
        let job = Job {
            call: terms.call,
            ticket,
            context: context.unbind(),
        };
        Crew::launch(slf, job)
    }

    /// Makes the asyncio task and has it do its first step.
    fn start<'py>(
        &self,
        slf: &Bound<'py, Self>,
        call: Call,
        ticket: Ticket,
        name: &Bound<'py, PyString>,
        context: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        let id = ticket.id;
        let work = Native::alloc(py, || Work::new(slf.clone().unbind(), call, ticket))?;
        self.roll.add(py, id, None);
        let options = Options {
            event_loop: self.event_loop(py),
            name,
            context,
            is_eager: self.is_eager,
        };
        let task = self.maker.make(&work, &options, &self.context)?;
        if !self.is_eager {
            let event_loop = self.event_loop.bind(py);
            let mut entered = TaskGuard::default();
            entered.enter(event_loop, task.clone(), true)?;
            let _context = InContext::enter(context)?;
            // What came of it the task will find when it is stepped.
            Native::<Work>::drive(&work, |work| Ok(work.step_ahead(&task)))?;
        }
        let disturbed = self.roll.is_in(py, id, task.clone().unbind());
        if disturbed {
            task.call_method0(intern!(py, "cancel"))?;
        }
        Ok(())
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
                ticket.queued,
                ticket.called,
            ),
        )
    }
}
