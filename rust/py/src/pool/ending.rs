//! How a plain task of a lane ends.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::envelope::{Envelope, Fields, final_kind};
use super::lane::Lane;
use super::roll::Live;
use super::ticket::Ticket;
use crate::object::fast_attr::Field;
use crate::runtime::asyncio;

impl Lane {
    /// The work of a task has really stopped. Gives what was known of it.
    fn stopped(&self, py: Python<'_>, ticket: &mut Ticket) -> PyResult<Option<Live>> {
        let live = self.roll.remove(py, ticket.id);
        if let Some(key) = &ticket.key {
            // Where its hash or a comparison raises, nobody can find it any more, so that nobody is refused for it.
            let _ = self.keys.bind(py).del_item(key);
        }
        ticket.grant.release(py)?;
        Ok(live)
    }

    /// It ended with a value; which asyncio overrules if the last step cancelled its own asyncio task. `task` is that one,
    /// where it is known.
    pub(super) fn returned(
        &self,
        py: Python<'_>,
        mut ticket: Ticket,
        value: &Bound<'_, PyAny>,
        task: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let live = self.stopped(py, &mut ticket)?;
        let (known, disturbed) = live.map_or((None, false), |live| (live.task, live.disturbed));
        let task = task
            .cloned()
            .or_else(|| known.map(|task| task.into_bound(py)))
            .or_else(|| asyncio::current_task_of(self.event_loop(py)));
        if let Some(task) = task
            && let Some(error) = struck_now(&task)?
        {
            let error = PyErr::from_value(error);
            return self.tell(py, ticket, &error, disturbed).map(drop);
        }
        let now = self.now(py)?;
        self.meter.get().note(py, now, false);
        let fields = Fields {
            task_id: ticket.id,
            key: ticket.key,
            kind: Some(final_kind(py)?.clone_ref(py)),
            value: Some(value.clone().unbind()),
            error: None,
            attempt: 1,
            queued: ticket.queued,
            started: Some(ticket.called),
            finished: Some(now),
        };
        let envelope = Envelope::make(py, fields)?.into_any();
        self.unread.get().put(py, envelope)?;
        self.over(py)
    }

    /// It ended with an error. Python tells of it, and says whether the asyncio task is to raise it too.
    pub(super) fn raised(
        &self,
        py: Python<'_>,
        mut ticket: Ticket,
        error: &PyErr,
    ) -> PyResult<bool> {
        let disturbed = self
            .stopped(py, &mut ticket)?
            .is_some_and(|live| live.disturbed);
        self.tell(py, ticket, error, disturbed)
    }

    fn tell(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        error: &PyErr,
        disturbed: bool,
    ) -> PyResult<bool> {
        let raises = self
            .python
            .bind(py)
            .call_method1(
                intern!(py, "raised"),
                (
                    ticket.id,
                    ticket.key,
                    ticket.queued,
                    ticket.called,
                    error.value(py),
                    disturbed,
                ),
            )?
            .is_truthy()?;
        self.over(py)?;
        Ok(raises)
    }

    fn over(&self, py: Python<'_>) -> PyResult<()> {
        if self.watched.load(Relaxed) && self.roll.len(py) == 0 {
            self.watched.store(false, Relaxed);
            self.python.bind(py).call_method0(intern!(py, "idle"))?;
        }
        Ok(())
    }
}

/// The error by which the last step of an asyncio task cancelled it, if it did: no other step will meet that.
fn struck_now<'py>(task: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    static MUST_CANCEL: Field = Field::new("_must_cancel");
    let py = task.py();
    let must = match MUST_CANCEL.read(task) {
        Some(must) => must?,
        None => task
            .getattr_opt(intern!(py, "_must_cancel"))?
            .ok_or_else(|| {
                PyRuntimeError::new_err(
                    "this interpreter's asyncio.Task has no _must_cancel, which a pool needs",
                )
            })?,
    };
    if must.is_truthy()? {
        return task
            .call_method0(intern!(py, "_make_cancelled_error"))
            .map(Some);
    }
    Ok(None)
}
