//! The mailbox of each event loop, and objects that are kept alive with it.
//! `park.rs` looks the mailbox up. Python pins the tasks of pools and background stages with `pin_to_loop`.
//!
//! The mailbox is in an attribute of the event loop. So the collector finds the cycle: the loop refers to its mailbox, the mailbox to the
//! waiters, and those to the loop. A global table would keep each loop with a waiter alive forever.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PySet, PyWeakrefMethods};
use pyo3::{PyTraverseError, PyVisit};

use super::loop_mailbox::{Mailbox, runs};
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::this_thread;

/// The value of the attribute of the event loop.
#[pyclass(frozen, weakref, module = "headrace._core")]
struct Address {
    mailbox: Arc<Mailbox>,
    /// The objects that live as long as the event loop: see [`pin_to_loop`].
    kept: Py<PySet>,
}

traverse!(Address { mailbox, kept });

#[pymethods]
impl Address {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.mailbox.abandon(py);
        drop(self.mailbox.take_wakes(py));
    }
}

/// All addresses, as the keys of a `WeakKeyDictionary`. In a forked child those of the parent remain, without effect.
static ADDRESSES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The addresses of event loops that accept no attributes, by loop. Waiters of such a loop that was closed are found when the next
/// loop gets a mailbox.
static OTHER_ADDRESSES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn weak_keys<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let made = cell.get_or_try_init(py, || {
        let weak_keys = py.import("weakref")?.getattr("WeakKeyDictionary")?;
        PyResult::Ok(weak_keys.call0()?.unbind())
    });
    Ok(made?.bind(py))
}

impl Address {
    /// Return the address of an event loop, if it has one.
    fn of<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Self>>> {
        let py = event_loop.py();
        let known = match event_loop.getattr_opt(intern!(py, "_headrace_mailbox"))? {
            Some(known) => known,
            None => match OTHER_ADDRESSES.get(py) {
                Some(others) => others
                    .call_method1(py, "get", (event_loop,))?
                    .into_bound(py),
                None => return Ok(None),
            },
        };
        Ok(known.cast_into::<Self>().ok())
    }

    fn keep(self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = event_loop.py();
        let address = Bound::new(py, self)?;
        weak_keys(py, &ADDRESSES)?.set_item(&address, py.None())?;
        if event_loop
            .setattr(intern!(py, "_headrace_mailbox"), &address)
            .is_err()
        {
            weak_keys(py, &OTHER_ADDRESSES)?.set_item(event_loop, address)?;
        }
        Ok(())
    }
}

/// The mailbox that was used last. Most programs have one event loop, and a `WeakKeyDictionary` is slow. It is used in its own thread
/// only, and so not in a forked child, whose thread has another number.
static RECENT: GilCell<Option<Arc<Mailbox>>> = GilCell::new(None);

/// Release all waiters of closed event loops.
fn abandon_closed(py: Python<'_>) -> PyResult<()> {
    let addresses = weak_keys(py, &ADDRESSES)?;
    // A copy of the keys, because another thread may add one.
    for address in addresses.call_method0(intern!(py, "keyrefs"))?.try_iter()? {
        let Ok(address) = address?.call0()?.cast_into::<Address>() else {
            continue;
        };
        let mailbox = &address.get().mailbox;
        if let Some(event_loop) = mailbox.event_loop.bind(py).upgrade()
            && asyncio::is_closed(&event_loop)?
        {
            addresses.call_method1(intern!(py, "pop"), (&address, py.None()))?;
            mailbox.abandon(py);
        }
    }
    Ok(())
}

/// Return the mailbox of the running event loop in nearly all cases; it is checked again where a future is made.
///
/// It is the mailbox that was used last, if that belongs to this thread and its event loop runs. (The loop may have moved to another
/// thread.) `get_running_loop()` may cost a system call.
pub(super) fn probable_mailbox(py: Python<'_>) -> PyResult<Arc<Mailbox>> {
    let recent = RECENT.borrow(py).clone();
    if let Some(mailbox) = recent
        && mailbox.thread == this_thread()
        && mailbox
            .event_loop
            .bind(py)
            .upgrade()
            .is_some_and(|event_loop| runs(&event_loop))
    {
        return Ok(mailbox);
    }
    mailbox(&asyncio::running_loop(py)?)
}

pub(super) fn mailbox(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Mailbox>> {
    let py = event_loop.py();
    let recent = RECENT.borrow(py).clone();
    if let Some(mailbox) = recent
        && mailbox.is_of(event_loop)
    {
        return Ok(mailbox);
    }
    let known = Address::of(event_loop)?;
    let known = known.as_ref().map(Bound::get);
    let mailbox = match known {
        Some(Address { mailbox, .. }) if mailbox.is_of(event_loop) => Arc::clone(mailbox),
        // An event loop may move to another thread between two runs, and then gets a new mailbox.
        _ => {
            abandon_closed(py)?;
            let mailbox = Mailbox::of(event_loop)?;
            let address = Address {
                mailbox: Arc::clone(&mailbox),
                kept: match known {
                    Some(known) => known.kept.clone_ref(py),
                    None => PySet::empty(py)?.unbind(),
                },
            };
            address.keep(event_loop)?;
            mailbox
        }
    };
    RECENT.set(py, Some(Arc::clone(&mailbox)));
    Ok(mailbox)
}

/// Keep an object alive as long as this event loop, which runs in this thread, or until [`unpin`]. For objects with
/// running tasks, to which the loop itself has only weak references.
#[pyfunction]
pub(crate) fn pin_to_loop(event_loop: &Bound<'_, PyAny>, kept: &Bound<'_, PyAny>) -> PyResult<()> {
    mailbox(event_loop)?;
    match Address::of(event_loop)? {
        Some(address) => address.get().kept.bind(kept.py()).add(kept),
        None => Ok(()),
    }
}

/// End the effect of [`pin_to_loop`].
#[pyfunction]
pub(crate) fn unpin(event_loop: &Bound<'_, PyAny>, kept: &Bound<'_, PyAny>) -> PyResult<()> {
    match Address::of(event_loop)? {
        Some(address) => address.get().kept.bind(kept.py()).discard(kept).map(drop),
        None => Ok(()),
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(pin_to_loop, module)?)?;
    module.add_function(wrap_pyfunction!(unpin, module)?)
}
