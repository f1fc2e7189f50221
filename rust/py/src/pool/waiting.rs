//! The plain task that waits for its capacity, in the feed that has pulled it.
//!
//! There is at most one, since a lane pulls one ahead. It waits in the line of its capacity as anybody does, and the feed
//! waits with it: so nothing is pulled meanwhile, and the one step of the feed that takes the lease goes on to launch
//! whatever else there is room for. Whoever wants the task itself, to cancel it, say, or to hand it back,
//! [withdraws](Waiting::withdraw) it; from then on it is Python's, and the feed finds nothing when it looks.

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;

use super::lane::Lane;
use crate::capacity::TaskPermit;
use crate::coroutine::{Future, Step, delegate};
use crate::object::gc::traverse;

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) item: Py<PyAny>,
    pub(super) id: u64,
    /// When it was taken up.
    pub(super) queued: f64,
    /// What gives its lease.
    pub(super) acquiring: Py<PyAny>,
    /// What the feeder waits for meanwhile.
    pub(super) awaited: Option<Py<PyAny>>,
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Waited<'py> {
    /// It was called.
    Called,
    /// It waits for this.
    Still(Bound<'py, PyAny>),
    /// It is Python's to see to it, if it has not done so already.
    Left,
}

impl Waiting {
    /// One step of waiting, and the call of the task if that was the last.
    pub(super) fn step<'py>(
        lane: &Bound<'py, Lane>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Waited<'py>> {
        let py = lane.py();
        let place = &lane.get().waiting;
        let acquiring = (place.borrow(py).as_ref()).map(|waiting| waiting.acquiring.clone_ref(py));
        let Some(acquiring) = acquiring else {
            return Ok(Waited::Left);
        };
        match delegate::send(acquiring.bind(py), value) {
            Ok(Step::Yield(awaited)) => {
                let old = (place.borrow(py).as_mut())
                    .and_then(|waiting| waiting.awaited.replace(awaited.clone().unbind()));
                drop(old);
                Ok(Waited::Still(awaited))
            }
            Ok(Step::Return(lease)) => {
                let mut grant = TaskPermit::Lease(lease.unbind());
                let waiting = place.borrow(py).take();
                match waiting {
                    Some(waiting) => {
                        Lane::launch_waiting(lane, &waiting, grant).map(|()| Waited::Called)
                    }
                    None => grant.release(py).map(|()| Waited::Left),
                }
            }
            // Python asks for it again, and tells of the error.
            Err(error) if error.is_instance_of::<PyException>(py) => Ok(Waited::Left),
            Err(error) => Err(error),
        }
    }

    /// Its place in the line is given up, and what it was granted just now; it stays here.
    pub(super) fn stop(lane: &Lane, py: Python<'_>) -> PyResult<()> {
        let acquiring =
            (lane.waiting.borrow(py).as_ref()).map(|waiting| waiting.acquiring.clone_ref(py));
        match acquiring {
            Some(acquiring) => close(acquiring.bind(py)),
            None => Ok(()),
        }
    }

    /// Takes the task out, if there is one, and it is the one that is asked for: the item, its number and when it was taken up.
    pub(super) fn withdraw(
        lane: &Lane,
        py: Python<'_>,
        id: Option<u64>,
    ) -> PyResult<Option<(Py<PyAny>, u64, f64)>> {
        let waiting = {
            let mut place = lane.waiting.borrow(py);
            place.take_if(|waiting| id.is_none_or(|id| id == waiting.id))
        };
        let Some(waiting) = waiting else {
            return Ok(None);
        };
        close(waiting.acquiring.bind(py))?;
        if let Some(awaited) = waiting.awaited {
            // The feeder is to look again; a bare turn of the loop, which is no future, comes by itself.
            if let Ok(awaited) = awaited.bind(py).cast::<Future>() {
                Future::wake(awaited)?;
            }
        }
        Ok(Some((waiting.item, waiting.id, waiting.queued)))
    }
}

traverse!(Waiting {
    item,
    acquiring,
    awaited
});

fn close(acquiring: &Bound<'_, PyAny>) -> PyResult<()> {
    acquiring
        .call_method0(intern!(acquiring.py(), "close"))
        .map(drop)
}
