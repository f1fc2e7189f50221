//! One of each source: the rows of a zip.

use std::collections::VecDeque;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::merge::Merge;
use super::source::{Asked, Key, Outcome, Slot};
use super::state::State;
use super::view::{MergeFeed, Taken};

/// When rows end.
#[derive(Debug)]
pub(super) enum Ending {
    /// With the first source that ends.
    Shortest,
    /// The same, but the sources stay open, and keep what they gave for a row that is not whole.
    Open,
    /// With all sources at once; otherwise it is an error.
    Strict,
    /// With the last source; this stands for what the others have no more of.
    Longest(Py<PyAny>),
}

impl MergeFeed {
    pub(super) fn take_row<'py>(
        &self,
        py: Python<'py>,
        merge: &Bound<'py, Merge>,
        ending: &Ending,
    ) -> PyResult<Taken<'py>> {
        let this = merge.get();
        let row = {
            let mut view = self.view.borrow(py);
            let mut state = this.state.borrow(py);
            if view.complete == 0
                && let Some(items) = state.take_whole_row(py)
            {
                view.rows += 1;
                drop((view, state));
                return Ok(Taken::Item(PyTuple::new(py, items)?.into_any()));
            }
            let stops = matches!(ending, Ending::Shortest | Ending::Open);
            // Sources may have come and gone since.
            view.complete = view.complete.min(state.order.len());
            while let Some(key) = state.order.get(view.complete).copied() {
                let is_missing = state
                    .slots
                    .get(key)
                    .is_some_and(|slot| slot.queue.is_empty() && !slot.is_done);
                if is_missing {
                    if stops && state.is_short() {
                        break;
                    }
                    if state.may_ask(key) {
                        state.want(key);
                        return Ok(Taken::Again);
                    }
                    return Ok(Taken::Wait(Some(key)));
                }
                view.complete += 1;
            }
            view.complete = 0;
            state.survey()
        };
        if row.has_failed {
            return self.row_failed(merge);
        }
        let rows = self.view.borrow(py).rows;
        match ending {
            Ending::Open if row.has_end => return Ok(Taken::End),
            Ending::Shortest if row.has_end => return self.end(merge, None),
            Ending::Strict if row.has_end && row.has_item => {
                return self.end(merge, Some(this.uneven(py, rows)));
            }
            _ if !row.has_item => return self.end(merge, None),
            _ => {}
        }
        let fill = match ending {
            Ending::Longest(fill) => Some(fill),
            _ => None,
        };
        let mut items = Vec::with_capacity(row.width);
        let mut labels = Vec::new();
        {
            let mut state = this.state.borrow(py);
            for number in 0..state.order.len() {
                let key = state.order[number];
                let Some(slot) = state.slots.get_mut(key) else {
                    continue;
                };
                if slot.is_done && slot.queue.is_empty() {
                    continue;
                }
                if slot.is_labelled {
                    labels.push(slot.name.clone_ref(py));
                }
                match slot.queue.pop_front() {
                    Some(Outcome::Item(item)) => {
                        items.push(item.into_bound(py));
                        state.want_more(key);
                    }
                    other => {
                        slot.queue.extend(other);
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
        Ok(Taken::Item(PyTuple::new(py, items)?.into_any()))
    }

    /// A source failed: the row is lost, and the first error is what is to be raised.
    #[cold]
    fn row_failed<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
        let py = merge.py();
        let (failures, lost) = {
            let mut state = merge.get().state.borrow(py);
            let mut failures = VecDeque::new();
            let mut lost = Vec::new();
            for number in 0..state.order.len() {
                let key = state.order[number];
                let Some(slot) = state.slots.get_mut(key) else {
                    continue;
                };
                match slot.queue.pop_front() {
                    Some(Outcome::Error(error)) => failures.push_back(*error),
                    Some(Outcome::End) => {
                        slot.queue.push_front(Outcome::End);
                        continue;
                    }
                    Some(item) => lost.push(item),
                    None => {}
                }
                state.want(key);
            }
            (failures, lost)
        };
        drop(lost);
        let first = {
            let mut view = self.view.borrow(py);
            view.rows += 1;
            view.failures = failures;
            view.failures.pop_front()
        };
        first.map_or(Ok(Taken::Again), |error| self.raise(merge, error))
    }
}

/// What the sources have for a row.
#[derive(Debug, Default)]
struct Row {
    width: usize,
    has_item: bool,
    has_end: bool,
    has_failed: bool,
}

impl State {
    /// Whether a source may be asked now.
    pub(super) fn may_ask(&self, key: Key) -> bool {
        self.slots
            .get(key)
            .is_some_and(|slot| slot.queue.is_empty() && slot.may_be_asked(1))
    }

    /// A row, if every source has a bare item for it: what most rows are.
    #[inline]
    fn take_whole_row<'py>(&mut self, py: Python<'py>) -> Option<Vec<Bound<'py, PyAny>>> {
        let Self {
            slots,
            order,
            wanted,
            ..
        } = self;
        let is_whole = order
            .iter()
            .all(|key| slots.get(*key).is_some_and(Slot::has_bare_item));
        if !is_whole || order.is_empty() {
            return None;
        }
        let items = order.iter().filter_map(|key| {
            let slot = slots.get_mut(*key)?;
            if slot.asked == Asked::No {
                slot.asked = Asked::Wanted;
                wanted.push_back(*key);
            }
            match slot.queue.pop_front() {
                Some(Outcome::Item(item)) => Some(item.into_bound(py)),
                _ => unreachable!("all were just seen to have an item"),
            }
        });
        let mut row = Vec::with_capacity(order.len());
        row.extend(items);
        Some(row)
    }

    pub(super) fn in_row(&self) -> impl Iterator<Item = &Slot> {
        self.in_order().filter(|slot| !slot.is_done)
    }

    /// Whether some source has no item for the row.
    fn is_short(&self) -> bool {
        // It is asked of each source that is waited for, and nearly always none has ended.
        self.ends > 0
            && self
                .in_row()
                .any(|slot| matches!(slot.queue.front(), Some(Outcome::End)))
    }

    fn survey(&self) -> Row {
        let mut row = Row::default();
        for slot in self.in_row() {
            row.width += 1;
            match slot.queue.front() {
                // One without anything is not waited for, as another has ended.
                Some(Outcome::Item(_)) | None => row.has_item = true,
                Some(Outcome::Error(_)) => row.has_failed = true,
                Some(Outcome::End) => row.has_end = true,
            }
        }
        row
    }
}

impl Merge {
    /// The error of a strict zip whose sources are of different lengths.
    fn uneven(&self, py: Python<'_>, rows: u64) -> PyErr {
        let (ended, others) = {
            let state = self.state.borrow(py);
            let (mut ended, mut others) = (Vec::new(), Vec::new());
            for slot in state.in_row() {
                let names = match slot.queue.front() {
                    Some(Outcome::End) => &mut ended,
                    _ => &mut others,
                };
                names.push(slot.name.clone_ref(py));
            }
            (ended, others)
        };
        let list = |names: Vec<Py<PyAny>>| {
            let word = if names.len() == 1 {
                "source"
            } else {
                "sources"
            };
            let names: Vec<String> = names
                .iter()
                .map(|name| {
                    let name = name.bind(py).repr();
                    name.map_or_else(|_| "?".to_owned(), |name| name.to_string())
                })
                .collect();
            format!("{word} {}", names.join(", "))
        };
        PyValueError::new_err(format!(
            "zip with strict=True: {} ended after {rows} {}, {} did not",
            list(ended),
            if rows == 1 { "item" } else { "items" },
            list(others),
        ))
    }
}
