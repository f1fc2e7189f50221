//! Where the mailbox of a loop is found, and what lives as long as the loop.
//!
//! A loop has it in an attribute, so that the collector sees what it is: the loop refers to its mailbox, that to those who wait
//! there, and these to the loop. A table of all loops would keep each loop in which somebody was left waiting for good.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PySet, PyWeakrefMethods};
use pyo3::{PyTraverseError, PyVisit};

use super::loop_mailbox::{Mailbox, runs};
use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::this_thread;

/// The attribute of the loop.
#[pyclass(frozen, weakref, module = "headrace._core")]
struct Address {
    mailbox: Arc<Mailbox>,
    /// What is to live while the loop does: see [`pin_to_loop`].
    kept: Py<PySet>,
}

#[pymethods]
impl Address {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.kept)?;
        gc::visit(&visit, |visit| self.mailbox.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.mailbox.abandon(py);
        drop(self.mailbox.take_wakes(py));
    }
}

/// All of them, as the keys of a `WeakKeyDictionary`. In a forked child those of the parent are still here, and do nothing.
static ADDRESSES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Those of loops that take no attributes, in another one, by loop. Who waits there when such a loop is closed is found when
/// the next one gets a mailbox.
static STRANGERS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

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
    /// That of a loop, if it has one.
    fn of<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Self>>> {
        let py = event_loop.py();
        let known = match event_loop.getattr_opt(intern!(py, "_headrace_mailbox"))? {
            Some(known) => known,
            None => match STRANGERS.get(py) {
                Some(strangers) => strangers
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
            weak_keys(py, &STRANGERS)?.set_item(event_loop, address)?;
        }
        Ok(())
    }
}

/// The mailbox that was used last. Most programs have one loop, and a dictionary of weak keys is
/// slow. It is used in its own thread only, and so not in a forked child, whose thread has another number.
static RECENT: GilCell<Option<Arc<Mailbox>>> = GilCell::new(None);

/// Lets go of all that waits on loops which were closed.
fn abandon_closed(py: Python<'_>) -> PyResult<()> {
    let addresses = weak_keys(py, &ADDRESSES)?;
    // At once, since another thread may add one.
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

/// The mailbox of the running loop, nearly always: where a future is made it is looked at again.
///
/// If the one that was used last belongs to this thread and its loop runs, it is that, unless the
/// loop runs in another thread by now. `get_running_loop()` may cost a system call.
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
        // A loop may move to another thread between two runs; its mailbox is then made anew.
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
    let old = RECENT.borrow(py).replace(Arc::clone(&mailbox));
    drop(old);
    Ok(mailbox)
}

/// Keeps an object for as long as this loop is there, which runs in this thread; or until it [is let go of](unpin). For what has
/// tasks under way: the loop itself holds them only weakly.
#[pyfunction]
pub(crate) fn pin_to_loop(event_loop: &Bound<'_, PyAny>, kept: &Bound<'_, PyAny>) -> PyResult<()> {
    mailbox(event_loop)?;
    match Address::of(event_loop)? {
        Some(address) => address.get().kept.bind(kept.py()).add(kept),
        None => Ok(()),
    }
}

/// Keeps it no longer.
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
