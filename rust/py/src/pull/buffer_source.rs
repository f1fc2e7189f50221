//! A pull from the far end of a buffer.
//!
//! It belongs to no loop and needs no turn: the buffer itself serves those who pull it, from any
//! thread, in the order in which they came.

use headrace_core::buffer::{Get, TryGetError};
use pyo3::prelude::*;

use super::awaitable::{Delivery, Pull, Stage, closed};
use super::link::PullLink;
use super::state::Phase;
use crate::buffer::Buffer;
use crate::coroutine::{Pending, Step};
use crate::errors;
use crate::errors::RaisedError;
use crate::runtime::yield_budget;

/// An item that is waited for, and the buffer that it is to come from.
pub(super) type Wanted = (Py<Buffer>, Pending<Get<Py<PyAny>>>);

impl Pull {
    /// The next item, if there is one that nobody who waits was promised.
    #[inline]
    pub(super) fn take<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        buffer: Py<Buffer>,
    ) -> Result<Step<'py>, RaisedError> {
        let py = link.py();
        let core = buffer.get().core();
        if core.is_broken() {
            return Err(RaisedError::set(py, errors::broken(py, "buffer")));
        }
        // Where there is nothing to be had at once there is nothing to rest from.
        if !self.rested && yield_budget::spend(py) && core.available() > 0 {
            return Ok(self.rest(link));
        }
        match core.try_get() {
            Ok(item) if self.delivery == Delivery::Item => {
                let item = buffer.get().reveal(item.into_bound(py));
                drop(buffer.into_bound(py));
                Ok(Step::Return(item))
            }
            Ok(item) => {
                let item = buffer.get().reveal(item.into_bound(py));
                RaisedError::set_from(py, self.deliver(item))
            }
            Err(why) => RaisedError::set_from(py, self.take_later(link, buffer, why)),
        }
    }

    /// Lets the loop have its turn before it takes.
    #[cold]
    fn rest<'py>(&mut self, link: &Bound<'py, PullLink>) -> Step<'py> {
        self.rested = true;
        self.wait_in(link, Stage::New);
        yield_budget::renew();
        Step::Yield(link.py().None().into_bound(link.py()))
    }

    /// There is no item to be taken now.
    #[cold]
    fn take_later<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        buffer: Py<Buffer>,
        why: TryGetError,
    ) -> PyResult<Step<'py>> {
        match why {
            TryGetError::Ended => self.deliver_end_of(link, buffer.get()),
            TryGetError::Empty => {
                let get = Pending::new(buffer.get().core().get());
                self.wait_for(link, Box::new((buffer, get)))
            }
        }
    }

    /// Waits for an item of the buffer, unless one came in between.
    pub(super) fn wait_for<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        mut wanted: Box<Wanted>,
    ) -> PyResult<Step<'py>> {
        let py = link.py();
        match wanted.1.step(py)? {
            Ok(Ok(item)) => self.deliver(wanted.0.get().reveal(item.into_bound(py))),
            Ok(Err(_)) => self.deliver_end_of(link, wanted.0.get()),
            Err(object) => {
                self.wait_in(link, Stage::Taking(wanted));
                yield_budget::renew();
                Ok(Step::Yield(object))
            }
        }
    }

    /// The end of a buffer: what its producers left, or that somebody closed it meanwhile.
    pub(super) fn deliver_end_of<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        buffer: &Buffer,
    ) -> PyResult<Step<'py>> {
        let py = link.py();
        if let Some(error) = buffer.take_error(py) {
            return Err(error);
        }
        // Closed by another of its consumers; if it had ended before, that is what this one hears of.
        if buffer.core().is_closed() {
            return Err(closed(py));
        }
        let mut state = link.get().state.borrow(py);
        if state.phase == Phase::Open {
            state.phase = Phase::Ended;
        }
        drop(state);
        self.deliver_end(py)
    }
}
