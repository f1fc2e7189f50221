//! What one push still has to do.

use pyo3::prelude::*;

use super::wait::Halt;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::object::iterator_result::IteratorResult;
use crate::source::AnySource;

/// Something that a stage has taken and that is not delivered yet.
#[derive(Debug)]
pub(super) enum Kept {
    /// What it made of an item.
    Item(Py<PyAny>),
    /// The rest of what it made of an item.
    Rest(AnySource),
    /// What it made of an item, for these branches of the fan below; the others have it.
    Part(Py<PyAny>, Vec<usize>),
}

impl Traverse for Kept {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match self {
            Self::Item(item) | Self::Part(item, _) => visit(item),
            Self::Rest(feed) => visit(feed.as_any()),
        }
    }
}

/// Something to be carried on from a stage.
#[derive(Debug)]
pub(super) struct Work {
    /// The number of the stage that it enters next.
    pub(super) entry: usize,
    pub(super) what: Kept,
    /// It is the item that was pushed, and nothing has taken it.
    pub(super) is_callers: bool,
}

/// The state of one push.
#[derive(Debug)]
pub(super) struct Todo {
    /// The item that was pushed, for the error that gives it back; `None` in a flush.
    pub(super) original: Option<Py<PyAny>>,
    /// What comes after the item that is being carried; the next one last.
    pub(super) stack: Vec<Work>,
    /// What the last stage that keeps state made of the item being carried, and the stage behind
    /// that one. If the push is cancelled now, that is where it goes on later.
    pub(super) taken: Option<(usize, Py<PyAny>)>,
    /// Some stage has taken the item that was pushed.
    pub(super) is_touched: bool,
    /// No more is wanted by the stages before this one.
    wanted_from: usize,
    /// What a foreign sink gave.
    result: Option<Py<PyAny>>,
    /// In a flush: the next stage to be flushed.
    pub(super) flushing: Option<usize>,
}

impl Todo {
    /// For an item that comes in at the top.
    #[inline]
    pub(super) fn of(item: &Bound<'_, PyAny>) -> Self {
        Self {
            original: Some(item.clone().unbind()),
            is_touched: false,
            ..Self::flush()
        }
    }

    /// For what the stages still hold.
    #[inline]
    pub(super) fn flush() -> Self {
        Self {
            original: None,
            stack: Vec::new(),
            taken: None,
            is_touched: true,
            wanted_from: 0,
            result: None,
            flushing: None,
        }
    }

    /// Puts an item aside that something else goes before.
    pub(super) fn defer(&mut self, item: &Bound<'_, PyAny>, entry: usize) {
        let is_callers = self.taken.is_none();
        self.push(entry, Kept::Item(item.clone().unbind()), is_callers);
    }

    /// Puts something on top of the stack, unless nobody wants it any more.
    pub(super) fn push(&mut self, entry: usize, what: Kept, is_callers: bool) {
        if entry >= self.wanted_from {
            self.stack.push(Work {
                entry,
                what,
                is_callers,
            });
        }
    }

    /// A stage that keeps state made this of the item being carried.
    pub(super) fn take(&mut self, entry: usize, output: &Bound<'_, PyAny>) {
        self.touch();
        self.taken = Some((entry, output.clone().unbind()));
    }

    /// Something of the item being carried was taken.
    pub(super) fn touch(&mut self) {
        if !self.callers_waits() {
            self.is_touched = true;
        }
    }

    /// Whether the pushed item waits for something that was kept before it.
    pub(super) fn callers_waits(&self) -> bool {
        self.stack.iter().any(|work| work.is_callers)
    }

    /// Whether nothing has taken the pushed item.
    pub(super) fn is_callers(&self) -> bool {
        !self.is_touched || self.callers_waits()
    }

    /// A wait that never began, or never will.
    pub(super) fn give_up(&mut self, py: Python<'_>, halt: Halt) -> PyResult<()> {
        match halt {
            Halt::Draw(feed, entry) => {
                self.push(entry, Kept::Rest(feed), false);
                Ok(())
            }
            halt => halt.discard(py),
        }
    }

    /// What is left of it, in the order of the stack: the last goes first.
    pub(super) fn into_left(mut self, was_cancelled: bool) -> Vec<Work> {
        if self.is_callers() && !self.callers_waits() {
            // What an iterable of the item has not begun to give is the item's.
            return Vec::new();
        }
        if was_cancelled && let Some((entry, item)) = self.taken.take() {
            self.push(entry, Kept::Item(item), false);
        }
        std::mem::take(&mut self.stack)
    }

    /// Whether nothing is left to do.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.stack.is_empty() && self.flushing.is_none()
    }

    /// Nothing more is wanted of what is above stage number `entry`.
    #[cold]
    pub(super) fn end_above(&mut self, entry: usize) {
        self.wanted_from = self.wanted_from.max(entry);
        let (unwanted, wanted) = std::mem::take(&mut self.stack)
            .into_iter()
            .partition(|work| work.entry < entry);
        self.stack = wanted;
        // Dropped when the stack is whole again: a destructor may run anything.
        let unwanted: Vec<Work> = unwanted;
        drop(unwanted);
    }

    /// A sink answered.
    pub(super) fn answered(&mut self, result: Bound<'_, PyAny>, entry: usize) -> PyResult<()> {
        if result.cast::<IteratorResult>()?.get().is_done() {
            self.end_above(entry + 1);
        }
        self.result = Some(result.unbind());
        Ok(())
    }

    /// Whether no more is wanted.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.wanted_from > 0
    }

    /// What the push gives.
    pub(super) fn result<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let result = self.result.take().map(|result| result.into_bound(py));
        if !self.is_done() {
            return result.map_or_else(|| IteratorResult::accepted(py), Ok);
        }
        match result {
            Some(result) if result.cast::<IteratorResult>()?.get().is_done() => Ok(result),
            _ => IteratorResult::end(py),
        }
    }
}

impl Traverse for Todo {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        for work in &self.stack {
            work.what.traverse(visit)?;
        }
        let taken = self.taken.as_ref().map(|(_, item)| item);
        [&self.original, &self.result]
            .into_iter()
            .flatten()
            .chain(taken)
            .try_for_each(visit)
    }
}
