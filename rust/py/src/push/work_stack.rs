//! `PushState`: the remaining work of one push. `deliver.rs` and `resume.rs` work on it; `Push` holds it.

use pyo3::prelude::*;

use super::wait::PendingWait;
use crate::object::gc::traverse;
use crate::object::iterator_result::PyIteratorResult;
use crate::source::AnySource;

/// An output that a stage has made and that is not delivered yet.
#[derive(Debug)]
pub(super) enum Retained {
    /// One item.
    Item(Py<PyAny>),
    /// An iterable, with items still to deliver.
    Inner(AnySource),
    /// One item, for these branches of the fan at the end. The other branches have accepted it.
    Part(Py<PyAny>, Vec<usize>),
}

traverse!(
    enum Retained {
        Item(item),
        Inner(source),
        Part(item, _),
    }
);

/// An item or iterable, and the stage where it continues.
#[derive(Debug)]
pub(super) struct WorkItem {
    /// The index of the stage that it enters next.
    pub(super) entry: usize,
    pub(super) content: Retained,
    /// It is the pushed item, and no stage has consumed it.
    pub(super) is_caller_item: bool,
}

/// The output of a stateful stage, and the stage that it enters next.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) entry: usize,
    pub(super) output: Py<PyAny>,
}

traverse!(Checkpoint { output });

/// The state of one push.
#[derive(Debug, Default)]
pub(super) struct PushState {
    /// The pushed item, for the error that returns it to the caller. `None` in a flush.
    pub(super) pushed: Option<Py<PyAny>>,
    /// The work after the current item. The next work is last.
    pub(super) stack: Vec<WorkItem>,
    /// The output of the last stateful stage for the current item. A cancelled push retains it, and a later push continues from there.
    pub(super) checkpoint: Option<Checkpoint>,
    /// A stage has consumed the pushed item.
    pub(super) is_consumed: bool,
    /// Stages before this one accept no more items.
    wanted_from: usize,
    /// The result of a foreign sink.
    result: Option<Py<PyAny>>,
    /// In a flush, the next stage to flush.
    pub(super) flushing: Option<usize>,
}

impl PushState {
    /// Return the state for an item that enters the first stage.
    #[inline]
    pub(super) fn of(item: &Bound<'_, PyAny>) -> Self {
        Self {
            pushed: Some(item.clone().unbind()),
            ..Self::default()
        }
    }

    /// Return the state for a flush.
    #[inline]
    pub(super) fn flush() -> Self {
        Self {
            is_consumed: true,
            ..Self::default()
        }
    }

    /// Defer an item until retained ones are delivered.
    pub(super) fn push_later(&mut self, item: &Bound<'_, PyAny>, entry: usize) {
        let is_caller_item = self.checkpoint.is_none();
        self.push(entry, Retained::Item(item.clone().unbind()), is_caller_item);
    }

    /// Put work on the stack, unless its stage accepts no more items.
    pub(super) fn push(&mut self, entry: usize, content: Retained, is_caller_item: bool) {
        if entry >= self.wanted_from {
            self.stack.push(WorkItem {
                entry,
                content,
                is_caller_item,
            });
        }
    }

    /// Record a stateful stage's output for the current item.
    pub(super) fn set_checkpoint(&mut self, entry: usize, output: &Bound<'_, PyAny>) {
        self.mark_consumed();
        self.checkpoint = Some(Checkpoint {
            entry,
            output: output.clone().unbind(),
        });
    }

    /// Note that a stage has consumed the current item.
    pub(super) fn mark_consumed(&mut self) {
        if !self.is_deferred() {
            self.is_consumed = true;
        }
    }

    /// Return whether the pushed item is deferred until retained ones are delivered.
    pub(super) fn is_deferred(&self) -> bool {
        self.stack.iter().any(|work| work.is_caller_item)
    }

    /// Return whether the caller owns the pushed item if the push fails now.
    pub(super) fn caller_owns(&self) -> bool {
        !self.is_consumed || self.is_deferred()
    }

    /// Give up a wait that has not started.
    pub(super) fn cancel_wait(&mut self, py: Python<'_>, wait: PendingWait) -> PyResult<()> {
        match wait {
            PendingWait::Source(feed, entry) => {
                self.push(entry, Retained::Inner(feed), false);
                Ok(())
            }
            wait => wait.discard(py),
        }
    }

    /// Return the remaining work, in the order of the stack: the last entry continues first.
    pub(super) fn into_remaining(mut self, was_cancelled: bool) -> Vec<WorkItem> {
        if self.caller_owns() && !self.is_deferred() {
            // An inner source that has delivered nothing yet is made again from the item.
            return Vec::new();
        }
        if was_cancelled && let Some(Checkpoint { entry, output }) = self.checkpoint.take() {
            self.push(entry, Retained::Item(output), false);
        }
        std::mem::take(&mut self.stack)
    }

    /// Return whether no work remains.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.stack.is_empty() && self.flushing.is_none()
    }

    /// Accept no more items for stages before `entry`, and drop their work.
    #[cold]
    pub(super) fn end_upstream_of(&mut self, entry: usize) {
        self.wanted_from = self.wanted_from.max(entry);
        let (unwanted, wanted) = std::mem::take(&mut self.stack)
            .into_iter()
            .partition(|work| work.entry < entry);
        self.stack = wanted;
        // Dropped after the stack is restored: a destructor may run any code.
        let unwanted: Vec<WorkItem> = unwanted;
        drop(unwanted);
    }

    /// Record the result of a foreign sink.
    pub(super) fn set_result(&mut self, result: Bound<'_, PyAny>, entry: usize) -> PyResult<()> {
        if result.cast::<PyIteratorResult>()?.get().is_done() {
            self.end_upstream_of(entry + 1);
        }
        self.result = Some(result.unbind());
        Ok(())
    }

    /// Return whether the sinks accept no more items.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.wanted_from > 0
    }

    /// Return the result of the push.
    pub(super) fn result<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let result = self.result.take().map(|result| result.into_bound(py));
        if !self.is_done() {
            return result.map_or_else(|| PyIteratorResult::accepted(py), Ok);
        }
        match result {
            Some(result) if result.cast::<PyIteratorResult>()?.get().is_done() => Ok(result),
            _ => PyIteratorResult::end(py),
        }
    }
}

traverse!(PushState {
    stack,
    checkpoint,
    pushed,
    result
});
traverse!(WorkItem { content });
