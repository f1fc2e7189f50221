//! The zip policy of a [`PyMergeView`]: each pull takes a row, a tuple of one item of each source. `view.rs` calls it.

use std::collections::VecDeque;

use headrace_core::sync::Key;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::merge::PyMerge;
use super::source::{Outcome, PollState, SourceState};
use super::source_error::repr;
use super::state::State;
use super::view::{PyMergeView, TakeResult};

/// The end of a zip, chosen by the parameters of the operator.
#[derive(Debug)]
pub(super) enum ZipEnd {
    /// It ends with the first source that ends.
    Shortest,
    /// As `Shortest`, but the sources stay open and keep the items of an incomplete row.
    KeepOpen,
    /// All sources must end after the same row; otherwise it raises.
    Strict,
    /// It ends with the last source that ends. This object replaces the items of ended sources.
    Longest(Py<PyAny>),
}

impl PyMergeView {
    /// Take the next row, or return the reason why there is none yet.
    ///
    /// `filled` counts the sources, from the first, that had an outcome when the row was last checked. So a pull that was woken
    /// does not check them again, until the row looks complete.
    pub(super) fn take_zip<'py>(
        &self,
        py: Python<'py>,
        merge: &Bound<'py, PyMerge>,
        ending: &ZipEnd,
    ) -> PyResult<TakeResult<'py>> {
        let this = merge.get();
        let row = {
            let mut view = self.view.borrow(py);
            let mut state = this.state.borrow(py);
            if view.filled == 0
                && let Some(items) = state.take_bare_row(py)
            {
                view.rows += 1;
                drop((view, state));
                return Ok(TakeResult::Item(PyTuple::new(py, items)?.into_any()));
            }
            let stops = matches!(ending, ZipEnd::Shortest | ZipEnd::KeepOpen);
            // Sources may have been removed since the last call.
            view.filled = view.filled.min(state.order.len());
            loop {
                while let Some(key) = state.order.get(view.filled).copied() {
                    let is_missing = state
                        .sources
                        .get(key)
                        .is_some_and(|entry| entry.queue.is_empty() && !entry.is_done);
                    if is_missing {
                        if stops && state.has_end() {
                            break;
                        }
                        if state.can_poll_empty(key) {
                            state.request_poll(key);
                            return Ok(TakeResult::Retry);
                        }
                        return Ok(TakeResult::Wait(Some(key)));
                    }
                    view.filled += 1;
                }
                view.filled = 0;
                let row = state.row_kinds();
                if row.missing == 0 || (stops && row.has_end) {
                    break row;
                }
                // Another view took an outcome that was counted, or a source was removed: check all sources again.
            }
        };
        if row.has_failed {
            return self.row_failed(merge);
        }
        let rows = self.view.borrow(py).rows;
        match ending {
            ZipEnd::KeepOpen if row.has_end => return Ok(TakeResult::End),
            ZipEnd::Shortest if row.has_end => return self.end(merge, None),
            ZipEnd::Strict if row.has_end && row.has_item => {
                return self.end(merge, Some(this.length_error(py, rows)));
            }
            _ if !row.has_item => return self.end(merge, None),
            _ => {}
        }
        let fill = match ending {
            ZipEnd::Longest(fill) => Some(fill),
            _ => None,
        };
        let mut items = Vec::with_capacity(row.width);
        let mut labels = Vec::new();
        {
            let mut state = this.state.borrow(py);
            for number in 0..state.order.len() {
                let key = state.order[number];
                let Some(entry) = state.sources.get_mut(key) else {
                    continue;
                };
                if entry.is_done && entry.queue.is_empty() {
                    continue;
                }
                // Either all sources of a zip have a label, or none has.
                if entry.is_labelled {
                    labels.push(entry.name.clone_ref(py));
                }
                match entry.queue.pop_front() {
                    Some(Outcome::Item(item)) => {
                        items.push(item.into_bound(py));
                        state.request_next(key);
                    }
                    other => {
                        entry.queue.extend(other);
                        items.extend(fill.map(|fill| fill.bind(py).clone()));
                    }
                }
            }
        }
        self.view.borrow(py).rows += 1;
        if !labels.is_empty() {
            items = labels
                .into_iter()
                .zip(items)
                .map(|(label, item)| Ok(PyTuple::new(py, [label.into_bound(py), item])?.into_any()))
                .collect::<PyResult<_>>()?;
        }
        Ok(TakeResult::Item(PyTuple::new(py, items)?.into_any()))
    }

    /// Drop a row with errors: raise the first error, and keep the others for the next pulls.
    #[cold]
    fn row_failed<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        let (failures, lost) = {
            let mut state = merge.get().state.borrow(py);
            let mut failures = VecDeque::new();
            let mut lost = Vec::new();
            for number in 0..state.order.len() {
                let key = state.order[number];
                let Some(entry) = state.sources.get_mut(key) else {
                    continue;
                };
                match entry.queue.pop_front() {
                    Some(Outcome::Error(error)) => failures.push_back(*error),
                    Some(Outcome::End) => {
                        entry.queue.push_front(Outcome::End);
                        continue;
                    }
                    Some(item) => lost.push(item),
                    None => {}
                }
                state.request_poll(key);
            }
            (failures, lost)
        };
        drop(lost);
        let first = {
            let mut view = self.view.borrow(py);
            view.rows += 1;
            view.row_errors = failures;
            view.row_errors.pop_front()
        };
        first.map_or(Ok(TakeResult::Retry), |error| self.raise(merge, error))
    }
}

/// The kinds of outcome in a row.
#[derive(Debug, Default)]
struct RowKinds {
    width: usize,
    /// The number of sources without an outcome.
    missing: usize,
    has_item: bool,
    has_end: bool,
    has_failed: bool,
}

impl State {
    /// Return whether a source has no outcome and may be polled.
    pub(super) fn can_poll_empty(&self, key: Key) -> bool {
        self.sources
            .get(key)
            .is_some_and(|entry| entry.queue.is_empty() && entry.can_poll(1))
    }

    /// Take a row if every source has an item and no label, which is the most common case.
    #[inline]
    fn take_bare_row<'py>(&mut self, py: Python<'py>) -> Option<Vec<Bound<'py, PyAny>>> {
        let Self {
            sources,
            order,
            to_poll,
            ..
        } = self;
        let is_whole = order
            .iter()
            .all(|key| sources.get(*key).is_some_and(SourceState::has_bare_item));
        if !is_whole || order.is_empty() {
            return None;
        }
        let items = order.iter().filter_map(|key| {
            let entry = sources.get_mut(*key)?;
            if entry.poll_state == PollState::No {
                entry.poll_state = PollState::Requested;
                to_poll.push_back(*key);
            }
            match entry.queue.pop_front() {
                Some(Outcome::Item(item)) => Some(item.into_bound(py)),
                _ => unreachable!("each source has an item: checked above"),
            }
        });
        let mut row = Vec::with_capacity(order.len());
        row.extend(items);
        Some(row)
    }

    /// Return the sources whose end was not taken.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &SourceState> {
        self.in_order().filter(|entry| !entry.is_done)
    }

    /// Return whether the next outcome of any source is its end.
    fn has_end(&self) -> bool {
        // The counter avoids the search, as this is called for each source without an item.
        self.ends > 0
            && self
                .unfinished()
                .any(|entry| matches!(entry.queue.front(), Some(Outcome::End)))
    }

    /// Return the kinds of outcome that the next row consists of.
    fn row_kinds(&self) -> RowKinds {
        let mut row = RowKinds::default();
        for entry in self.unfinished() {
            row.width += 1;
            match entry.queue.front() {
                Some(Outcome::Item(_)) => row.has_item = true,
                None => row.missing += 1,
                Some(Outcome::Error(_)) => row.has_failed = true,
                Some(Outcome::End) => row.has_end = true,
            }
        }
        row
    }
}

impl PyMerge {
    /// Create the error of a strict zip whose sources differ in length.
    fn length_error(&self, py: Python<'_>, rows: u64) -> PyErr {
        let (ended, others) = {
            let state = self.state.borrow(py);
            let has_ended =
                |entry: &&SourceState| matches!(entry.queue.front(), Some(Outcome::End));
            let (ended, others): (Vec<_>, Vec<_>) = state.unfinished().partition(has_ended);
            let names = |entries: Vec<&SourceState>| {
                let names = entries.into_iter().map(|entry| entry.name.clone_ref(py));
                names.collect()
            };
            (names(ended), names(others))
        };
        let list = |names: Vec<Py<PyAny>>| {
            let plural = if names.len() == 1 { "" } else { "s" };
            let names: Vec<String> = names.iter().map(|name| repr(name, py)).collect();
            format!("source{plural} {}", names.join(", "))
        };
        PyValueError::new_err(format!(
            "zip with strict=True: {} ended after {rows} {}, {} did not",
            list(ended),
            if rows == 1 { "item" } else { "items" },
            list(others),
        ))
    }
}
