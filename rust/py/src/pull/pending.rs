//! Pending input: items that precede the source's next item. `pipeline.rs` reads them, as `Pipeline::next_input`.
//!
//! They were left in links by cancelled pulls, handed back, returned as an iterable by a kernel, or
//! are flushed at the end.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::prelude::*;

use super::link::PyPullLink;
use super::pipeline::{Advance, Entry, Pipeline};
use crate::errors::RaisedError;
use crate::runtime::yield_budget;
use crate::source::SourcePoll;

/// The next input of a pipeline.
pub(super) enum NextInput<'py> {
    Entry(Entry<'py>),
    /// Poll the source.
    Source,
    Outcome(Advance<'py>),
}

impl Pipeline {
    /// Return whether something must be checked before the source is polled.
    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        self.is_special || self.guard.revoked.load(Relaxed)
    }

    /// Find the input that precedes the source's next item.
    #[inline(never)]
    pub(super) fn next_input<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PyPullLink>,
    ) -> Result<NextInput<'py>, RaisedError> {
        match self.next_from_inner(py) {
            Some(ahead) => Ok(ahead),
            None => RaisedError::set_from(py, self.next_pending(py, tail)),
        }
    }

    /// Return the next ready item of the current inner source. If there is none, `next_pending` polls that
    /// source for the reason.
    #[inline]
    fn next_from_inner<'py>(&self, py: Python<'py>) -> Option<NextInput<'py>> {
        let (index, source) = self.current_inner.as_ref()?;
        if self.guard.revoked.load(Relaxed) {
            return None;
        }
        self.guard.at.store(index + 1, Relaxed);
        if yield_budget::spend(py) {
            return Some(NextInput::Outcome(Self::yield_now(py)));
        }
        let item = source.ready(py)?;
        Some(NextInput::Entry((item, index + 1)))
    }

    /// Find the next input if it does not come from the source, in this order: items left in links,
    /// from the tail upstream; then the items that flushing yields. Rebuild the pipeline first if a
    /// link was detached from it.
    #[cold]
    fn next_pending<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PyPullLink>,
    ) -> PyResult<NextInput<'py>> {
        if self.guard.revoked.load(Relaxed) {
            // The end is found again: a source repeats it, and `build` asks each kernel.
            *self = Self::build(tail)?;
        }
        while let Some(&index) = self.pending_stages.last() {
            let link = self.stages[index].link(tail);
            if let Some(item) = link.take_returned(py) {
                return Ok(NextInput::Entry((item, index + 1)));
            }
            if let Some(item) = link.take_retained(py) {
                if !link.has_pending(py) {
                    self.pop_pending();
                    self.is_special = self.head_has_returned
                        || !self.pending_stages.is_empty()
                        || self.ending.is_some();
                }
                return Ok(NextInput::Entry((item, index)));
            }
            let Some(pending) = link.inner_source(py) else {
                self.pop_pending();
                continue;
            };
            if self.current_inner.is_none() {
                self.current_inner = Some((index, pending.clone_ref(py)));
                if let Some(ahead) = self.next_from_inner(py) {
                    return Ok(ahead);
                }
            }
            // It has no ready item.
            self.current_inner = None;
            match pending.poll_next(py) {
                Ok(SourcePoll::Item(item)) => return Ok(NextInput::Entry((item, index + 1))),
                Ok(SourcePoll::Wait(wait, object)) => {
                    return Ok(NextInput::Outcome(Self::wait(*wait, index + 1, object)));
                }
                Ok(SourcePoll::End) => {
                    self.stages[index].link(tail).set_inner_source(py, None);
                    self.pop_pending();
                }
                Err(error) => {
                    let error = self.stages[index].annotate(tail, error, None);
                    return self
                        .route_error(py, error, index + 1)
                        .map(NextInput::Entry)
                        .map_err(|raised| raised.fetch(py));
                }
            }
        }
        if self.head_has_returned {
            let head = self.head.as_ref().map_or_else(|| tail.get(), Py::get);
            if let Some(item) = head.take_returned(py) {
                return Ok(NextInput::Entry((item, 0)));
            }
            self.head_has_returned = false;
        }
        let Some(from) = self.ending else {
            self.is_special = false;
            return Ok(NextInput::Source);
        };
        if yield_budget::spend(py) {
            return Ok(NextInput::Outcome(Self::yield_now(py)));
        }
        for index in from..self.stages.len() {
            if let Some(item) = self.stages[index].kernel.flush(py) {
                // This stage may hold more.
                self.ending = Some(index);
                return Ok(NextInput::Entry((item, index + 1)));
            }
        }
        self.ending = Some(self.stages.len());
        Ok(NextInput::Outcome(Advance::End))
    }

    /// Note that the link of stage `index` holds items that precede those from upstream.
    pub(super) fn add_pending(&mut self, index: usize) {
        self.pending_stages.push(index);
        self.current_inner = None;
        self.is_special = true;
    }

    /// Note that items were handed back to the tail.
    pub(super) fn add_pending_tail(&mut self) {
        match self.stages.len() {
            0 => {
                self.head_has_returned = true;
                self.is_special = true;
            }
            count => self.add_pending(count - 1),
        }
    }

    /// Note that the last of the pending stages has nothing left.
    fn pop_pending(&mut self) {
        self.pending_stages.pop();
        self.current_inner = None;
    }
}
