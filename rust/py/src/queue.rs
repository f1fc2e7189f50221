//! `Queue`: the buffer by the names of `asyncio.Queue`, and for threads too.
//!
//! Its `get` and `put` are native awaitables, which find a ready queue ready without a loop. A
//! thread that has to wait lets go of the GIL and sleeps on a [`Bell`].

use std::ffi::CStr;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use headrace_core::buffer::{self as core, Get, Order, Overflow, Put, PutError, TryGetError};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::asyncio;
use crate::awaitable::ready::{Operation, Ready};
use crate::awaitable::{Class, Coroutine, Native, Pending, Seen, Step, Stopped};
use crate::buffer::{by_priority, incomparable, show_items};
use crate::errors::{self, Raised};
use crate::fork::Home;
use crate::gc;

type Core = core::Buffer<Py<PyAny>>;

/// The native part of a queue.
#[pyclass(subclass, generic, frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Queue {
    home: Home,
    /// Made by `__init__`, so that a subclass may have one of its own.
    core: OnceLock<Made>,
}

#[derive(Debug)]
struct Made {
    core: Arc<Core>,
    /// As it was given.
    maxsize: Py<PyAny>,
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            home: Home::here(),
            core: OnceLock::new(),
        }
    }

    /// The order comes from the class.
    fn __init__(slf: &Bound<'_, Self>, maxsize: Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let order: String = slf.getattr(intern!(py, "_order"))?.extract()?;
        let order = match order.as_str() {
            "lifo" => Order::Lifo,
            "priority" => by_priority(false),
            _ => Order::Fifo,
        };
        let made = Made {
            core: Core::with(bound(&maxsize)?, Overflow::Block, order),
            maxsize: maxsize.unbind(),
        };
        let made = slf.get().core.set(made);
        made.map_err(|_| PyRuntimeError::new_err("this queue was initialised before"))
    }

    #[classattr]
    #[pyo3(name = "_order")]
    fn order() -> &'static str {
        "fifo"
    }

    /// Takes the next item, as soon as there is one.
    fn get(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let py = slf.py();
        Native::alloc(py, || Taking {
            queue: Some(slf.unbind()),
            waiting: None,
        })
    }

    /// Stores an item, as soon as there is room.
    fn put<'py>(slf: Bound<'py, Self>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        Native::alloc(py, || Storing {
            queue: Some(slf.unbind()),
            item: Some(item.unbind()),
            waiting: None,
        })
    }

    /// The next item, or `QueueEmpty`.
    fn get_nowait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.core(py)?.try_get() {
            Ok(item) => Ok(item.into_bound(py)),
            Err(TryGetError::Empty) => Err(empty(py)),
            Err(TryGetError::Ended) => Err(shut_down(py)),
        }
    }

    /// Stores an item, or raises `QueueFull`.
    fn put_nowait(&self, item: Bound<'_, PyAny>) -> PyResult<()> {
        let py = item.py();
        let stored = self.core(py)?.try_put(item.unbind());
        stored.map_err(|refused| refusal(py, refused))
    }

    /// Takes the next item in a thread without a loop, waiting for it at most so many seconds.
    #[pyo3(signature = (timeout = None))]
    fn get_sync<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core(py)?;
        let deadline = timeout.map(seconds).transpose()?.flatten();
        match core.try_get() {
            Ok(item) => return Ok(item.into_bound(py)),
            Err(TryGetError::Ended) => return Err(shut_down(py)),
            Err(TryGetError::Empty) => {}
        }
        match wait(py, "get", core.get(), deadline)? {
            Some(Ok(item)) => Ok(item.into_bound(py)),
            Some(Err(core::Ended)) => Err(shut_down(py)),
            None => Err(empty(py)),
        }
    }

    /// Stores an item from a thread without a loop, waiting for room at most so many seconds.
    #[pyo3(signature = (item, timeout = None))]
    fn put_sync(&self, item: Bound<'_, PyAny>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = item.py();
        let core = self.core(py)?;
        let deadline = timeout.map(seconds).transpose()?.flatten();
        match core.try_put(item.unbind()) {
            Ok(()) => Ok(()),
            Err(PutError::Full(item)) => match wait(py, "put", core.put(item), deadline)? {
                Some(stored) => stored.map_err(|refused| refusal(py, refused)),
                None => Err(error(py, "QueueFull")),
            },
            Err(refused) => Err(refusal(py, refused)),
        }
    }

    /// How many items are free to be taken.
    fn qsize(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.core(py)?.available())
    }

    fn empty(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.core(py)?.available() == 0)
    }

    fn full(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.core(py)?.is_full())
    }

    #[getter]
    fn maxsize(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.core(py)?;
        Ok(self.made()?.maxsize.clone_ref(py))
    }

    /// One of the items that were taken is done with.
    fn task_done(&self, py: Python<'_>) -> PyResult<()> {
        if self.core(py)?.task_done() {
            Ok(())
        } else {
            Err(PyValueError::new_err("task_done() called too many times"))
        }
    }

    /// Waits until all items are done with.
    fn join<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core(py)?;
        Ready::make(
            py,
            Join {
                home: self.home,
                core: Arc::clone(core),
                future: core.join(),
            },
        )
    }

    /// Ends it: nothing comes in any more and, if `immediate`, nothing goes out.
    #[pyo3(signature = (immediate = false))]
    fn shutdown(&self, py: Python<'_>, immediate: bool) -> PyResult<()> {
        let core = self.core(py)?;
        if immediate {
            drop(core.close());
        } else {
            core.finish();
        }
        Ok(())
    }

    /// For `repr`: waiting getters, waiting putters, unfinished items, whether it was shut down.
    fn _figures(&self, py: Python<'_>) -> PyResult<(usize, usize, usize, bool)> {
        let core = self.core(py)?;
        let now = core.statistics();
        Ok((
            now.waiting_getters,
            now.waiting_putters,
            core.unfinished(),
            core.is_finished() || core.is_closed(),
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::show(&visit, |see| {
            let Some(made) = self.core.get() else {
                return Ok(());
            };
            see(&made.maxsize)?;
            show_items(&made.core, see)
        })
    }

    fn __clear__(&self) {
        if let Some(made) = self.core.get() {
            drop(made.core.close());
        }
    }
}

impl Queue {
    #[inline]
    fn made(&self) -> PyResult<&Made> {
        self.core.get().ok_or_else(uninitialised)
    }

    /// The core, if it may be used here; handed over by registers, where what could hold an error
    /// would not be.
    #[inline]
    fn usable(&self, py: Python<'_>) -> Result<&Arc<Core>, Raised> {
        match self.core.get() {
            Some(made) if self.home.check(py, "queue").is_ok() && !made.core.is_broken() => {
                Ok(&made.core)
            }
            _ => self.unusable(py),
        }
    }

    #[cold]
    fn unusable(&self, py: Python<'_>) -> Result<&Arc<Core>, Raised> {
        Raised::lower(py, self.core(py))
    }

    /// The core, if it may be used here.
    fn core(&self, py: Python<'_>) -> PyResult<&Arc<Core>> {
        self.home.check(py, "queue")?;
        let core = &self.made()?.core;
        if core.is_broken() {
            return Err(errors::broken(py, "queue"));
        }
        Ok(core)
    }
}

#[cold]
fn uninitialised() -> PyErr {
    PyRuntimeError::new_err("this queue was not initialised: call super().__init__() first")
}

/// The bound that `asyncio.Queue` takes a number for: it is full with that many items or more, and
/// infinite if that is none.
fn bound(maxsize: &Bound<'_, PyAny>) -> PyResult<Option<std::num::NonZeroUsize>> {
    let number: f64 = maxsize
        .extract()
        .map_err(|_| errors::wrong_type("maxsize", "a number", maxsize))?;
    if let Ok(whole) = maxsize.extract::<usize>() {
        return Ok(std::num::NonZeroUsize::new(whole));
    }
    let least = number.ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and what is no number becomes 0: both are unbounded"
    )]
    let least = least as usize;
    Ok(std::num::NonZeroUsize::new(least).filter(|bound| bound.get() < usize::MAX))
}

/// An error of `headrace.queue`.
#[cold]
fn error(py: Python<'_>, name: &str) -> PyErr {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || PyResult::Ok(py.import("headrace.queue")?.unbind()));
    match module.and_then(|module| module.bind(py).getattr(name)?.call0()) {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

fn empty(py: Python<'_>) -> PyErr {
    error(py, "QueueEmpty")
}

fn shut_down(py: Python<'_>) -> PyErr {
    error(py, "QueueShutDown")
}

/// Why an item was not stored. What it was comes to nothing, as with `asyncio.Queue`: the caller has it.
#[cold]
fn refusal(py: Python<'_>, refused: PutError<Py<PyAny>>) -> PyErr {
    match refused {
        PutError::Full(_) => error(py, "QueueFull"),
        PutError::Closed(_) => shut_down(py),
        PutError::Unranked(_, fault) => incomparable(py, fault),
    }
}

/// One `get()`.
#[derive(Debug)]
struct Taking {
    /// `None` while a step runs, which then holds it, and once it is finished.
    queue: Option<Py<Queue>>,
    waiting: Option<Box<Pending<Get<Py<PyAny>>>>>,
}

static TAKING: Class = Class::new();

impl Taking {
    #[cold]
    fn step_slowly<'py>(&mut self, queue: Bound<'py, Queue>) -> PyResult<Step<'py>> {
        let py = queue.py();
        let core = queue.get().core(py)?;
        let mut waiting = self
            .waiting
            .take()
            .unwrap_or_else(|| Box::new(Pending::new(core.get())));
        match waiting.step(py)? {
            Ok(Ok(item)) => Ok(Step::Return(item.into_bound(py))),
            Ok(Err(core::Ended)) => Err(shut_down(py)),
            Err(object) => {
                self.waiting = Some(waiting);
                self.queue = Some(queue.unbind());
                Ok(Step::Yield(object))
            }
        }
    }
}

impl Coroutine for Taking {
    const NAME: &'static CStr = c"headrace._core.QueueGet";

    fn class() -> &'static Class {
        &TAKING
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        let py = value.py();
        let Some(queue) = self.queue.take() else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let queue = queue.into_bound(py);
        if self.waiting.is_none() {
            match queue.get().usable(py)?.try_get() {
                Ok(item) => return Ok(Step::Return(item.into_bound(py))),
                Err(TryGetError::Ended) => return Err(Raised::set(py, shut_down(py))),
                Err(TryGetError::Empty) => {}
            }
        }
        Raised::lower(py, self.step_slowly(queue))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.abandon(py);
        Err(error)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.queue.is_none() && self.waiting.is_none()
    }

    fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        if let Some(queue) = &self.queue {
            see(queue.as_any())?;
        }
        self.waiting
            .as_ref()
            .map_or(Ok(()), |waiting| waiting.traverse(see))
    }

    fn abandon(&mut self, _py: Python<'_>) {
        // Dropping the future gives up its place; the item is still in the queue.
        self.waiting = None;
        self.queue = None;
    }
}

/// One `put()`.
#[derive(Debug)]
struct Storing {
    /// `None` while a step runs, which then holds it, and once it is finished.
    queue: Option<Py<Queue>>,
    /// Until the first step.
    item: Option<Py<PyAny>>,
    waiting: Option<Box<Pending<Put<Py<PyAny>>>>>,
}

static STORING: Class = Class::new();

impl Storing {
    #[cold]
    fn step_slowly<'py>(
        &mut self,
        queue: Bound<'py, Queue>,
        mut waiting: Box<Pending<Put<Py<PyAny>>>>,
    ) -> PyResult<Step<'py>> {
        let py = queue.py();
        queue.get().core(py)?;
        match waiting.step(py)? {
            Ok(Ok(())) => Ok(Step::Return(py.None().into_bound(py))),
            Ok(Err(refused)) => Err(refusal(py, refused)),
            Err(object) => {
                self.waiting = Some(waiting);
                self.queue = Some(queue.unbind());
                Ok(Step::Yield(object))
            }
        }
    }
}

impl Coroutine for Storing {
    const NAME: &'static CStr = c"headrace._core.QueuePut";

    fn class() -> &'static Class {
        &STORING
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        let py = value.py();
        let Some(queue) = self.queue.take() else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let queue = queue.into_bound(py);
        let waiting = match self.item.take() {
            None => self.waiting.take().expect("it waits if it has no item"),
            Some(item) => {
                let core = queue.get().usable(py)?;
                match core.try_put(item) {
                    Ok(()) => return Ok(Step::Return(value.clone())),
                    Err(PutError::Full(item)) => Box::new(Pending::new(core.put(item))),
                    Err(refused) => return Err(Raised::set(py, refusal(py, refused))),
                }
            }
        };
        Raised::lower(py, self.step_slowly(queue, waiting))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.abandon(py);
        Err(error)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.queue.is_none() && self.item.is_none() && self.waiting.is_none()
    }

    fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        if let Some(queue) = &self.queue {
            see(queue.as_any())?;
        }
        if let Some(item) = &self.item {
            see(item)?;
        }
        let Some(waiting) = self.waiting.as_deref() else {
            return Ok(());
        };
        if let Some(item) = waiting.future.item() {
            see(item)?;
        }
        waiting.traverse(see)
    }

    fn abandon(&mut self, _py: Python<'_>) {
        // Dropping the future gives up its place; its item never left the caller.
        self.waiting = None;
        self.item = None;
        self.queue = None;
    }
}

/// One `join()`.
#[derive(Debug)]
struct Join {
    home: Home,
    core: Arc<Core>,
    future: core::Join<Py<PyAny>>,
}

static JOIN: Class = Class::new();

impl Operation for Join {
    const NAME: &'static CStr = c"headrace._core.QueueJoin";

    fn class() -> &'static Class {
        &JOIN
    }

    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>> {
        if let Err(error) = self.home.check(py, "queue") {
            return Poll::Ready(Err(error));
        }
        if self.core.is_broken() {
            return Poll::Ready(Err(errors::broken(py, "queue")));
        }
        Pin::new(&mut self.future)
            .poll(context)
            .map(|()| Ok(py.None().into_bound(py)))
    }

    fn traverse(&self, _see: Seen<'_>) -> Result<(), Stopped> {
        Ok(())
    }
}

/// What wakes a thread.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

impl Bell {
    /// Sleeps until it is rung, or until the time is over.
    fn listen(&self, time: Option<Duration>) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = match time {
            None => (self.changed.wait_while(rung, |rung| !*rung))
                .unwrap_or_else(PoisonError::into_inner),
            Some(time) => {
                (self.changed.wait_timeout_while(rung, time, |rung| !*rung))
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        *rung = false;
    }
}

/// How long the main thread sleeps at a time. Signals are handled there, and a handler has to run
/// while it waits.
const GLANCE: Duration = Duration::from_millis(50);

/// Blocks the thread until the future is ready; `None` if it is not by then.
fn wait<F: Future + Unpin>(
    py: Python<'_>,
    what: &str,
    mut future: F,
    deadline: Option<Instant>,
) -> PyResult<Option<F::Output>> {
    if asyncio::running(py).is_some() {
        return Err(PyRuntimeError::new_err(format!(
            "{what}_sync() would block the event loop that runs in this thread; await {what}() instead",
        )));
    }
    let glance = is_main_thread(py)?.then_some(GLANCE);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return Ok(Some(output));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        let time = match (left, glance) {
            (Some(left), Some(glance)) => Some(left.min(glance)),
            (left, glance) => left.or(glance),
        };
        py.detach(|| bell.listen(time));
        py.check_signals()?;
    }
}

/// When so many seconds will be over; `None` for never.
fn seconds(timeout: &Bound<'_, PyAny>) -> PyResult<Option<Instant>> {
    let seconds: f64 = timeout
        .extract()
        .map_err(|_| errors::wrong_type("timeout", "a number of seconds or None", timeout))?;
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "timeout must not be negative, got {}",
            errors::describe(timeout)
        )));
    }
    Ok(Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|time| Instant::now().checked_add(time)))
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import(intern!(py, "threading"))?;
    let current = threading.call_method0(intern!(py, "get_ident"))?;
    let main = threading
        .call_method0(intern!(py, "main_thread"))?
        .getattr(intern!(py, "ident"))?;
    current.eq(main)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Queue>()?;
    let py = module.py();
    Native::<Taking>::register(py)?;
    Native::<Storing>::register(py)?;
    Native::<Ready<Join>>::register(py)
}
