//! References that are dropped without recursion, for objects that may have a long chain behind them.
//!
//! Dropping the last reference to a link drops the link's reference to its source, which may be the last one to the next link. A
//! pipeline of 10,000 links would nest 10,000 deallocators. CPython solves this for its containers and for classes written in
//! Python by the trashcan. Up to 3.12 that lets 50 deallocators nest. In 3.13 it lets as many nest as its count of C frames has
//! left, up to 10,000: 8 MB of stack for classes like these, where a thread may have half a megabyte.
//!
//! So each link, source, merge and fan-out holds an [`IterativeDrop`] of the next object along the pipeline. [`MOST`] of those
//! drops may nest. Deeper references wait in a list of the thread until the outermost drop has finished. A shorter pipeline is
//! dropped as if this type did not exist: in order and immediately.
//!
//! **It must be the last field of its owner**, or be dropped last where the owner is taken apart by hand. Other references to the
//! same object may exist: of the pipeline that runs the link, or of a pull that waits in it. Dropping those only decrements a
//! counter, so they need no `IterativeDrop`, which would cost time for each item.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug};
use std::mem::ManuallyDrop;
use std::ops::Deref;

use pyo3::prelude::*;

use super::gc::{Traverse, VisitError, Visitor};

/// The most drops that may nest: in a build without optimisation, each takes 6 KB of stack.
const MOST: usize = 25;

/// The nested and the waiting drops of a thread.
struct DropQueue {
    /// The number of drops in progress, each nested in the one before.
    depth: Cell<usize>,
    /// References that were nested too deeply, most recent last.
    waiting: RefCell<Vec<Py<PyAny>>>,
}

thread_local! {
    /// Kept in a forked child, which has the same stack.
    static QUEUE: DropQueue = const {
        DropQueue {
            depth: Cell::new(0),
            waiting: RefCell::new(Vec::new()),
        }
    };
}

/// A reference along a pipeline: see the top of this file.
pub(crate) struct IterativeDrop<T>(ManuallyDrop<Py<T>>);

impl<T> From<Py<T>> for IterativeDrop<T> {
    #[inline]
    fn from(reference: Py<T>) -> Self {
        Self(ManuallyDrop::new(reference))
    }
}

impl<T> Deref for IterativeDrop<T> {
    type Target = Py<T>;

    #[inline]
    fn deref(&self) -> &Py<T> {
        &self.0
    }
}

impl<T> Drop for IterativeDrop<T> {
    fn drop(&mut self) {
        // SAFETY: the only place that takes it, and the field is not used after the drop.
        let reference = unsafe { ManuallyDrop::take(&mut self.0) };
        drop_reference(reference.into_any());
    }
}

impl<T> Traverse for IterativeDrop<T> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(self.0.as_any())
    }
}

impl<T> Debug for IterativeDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn drop_reference(reference: Py<PyAny>) {
    // If the list of the thread is gone, which happens as the thread ends, the reference is dropped with recursion.
    let mut reference = Some(reference);
    let _ = QUEUE.try_with(|queue| {
        let depth = queue.depth.get();
        if depth == MOST {
            queue.waiting.borrow_mut().extend(reference.take());
            return;
        }
        queue.depth.set(depth + 1);
        drop(reference.take());
        if depth == 0 {
            // One borrow for each: a drop may add to the list.
            while let Some(next) = queue.pop() {
                drop(next);
            }
        }
        queue.depth.set(depth);
    });
}

impl DropQueue {
    #[inline]
    fn pop(&self) -> Option<Py<PyAny>> {
        self.waiting.borrow_mut().pop()
    }
}
