//! `IterativeDrop`: a reference that is dropped without recursion, for the links of a chain of any length.
//!
//! Dropping the last reference to a link drops the link's reference to its source, which may be the last one to the next link. A
//! pipeline of 10,000 links would nest 10,000 deallocators. CPython's *trashcan* solves this for its containers and for classes
//! written in Python. Up to 3.12 it nests at most 50 deallocators. From 3.13 on it nests up to 10,000, the limit of C recursion.
//! Ten thousand native deallocators take 8 MB of stack, and a thread may have half a megabyte.
//!
//! So each link, source, merge and fan-out holds an [`IterativeDrop`] of the next object along the pipeline. At most
//! [`MAX_DEPTH`] of those drops nest. Deeper references wait in a list of the thread until the outermost drop has finished. A
//! shorter pipeline is dropped as if this type did not exist: in order and immediately.
//!
//! **It must be the last field of its owner**, or be dropped last where the owner is taken apart by hand. The fused pipeline that
//! runs a link, and a pull suspended in it, hold ordinary references to the same object. Dropping those only decrements a counter, so
//! they need no `IterativeDrop`, which would cost time for each item.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug};
use std::mem::ManuallyDrop;
use std::ops::Deref;

use pyo3::prelude::*;

use super::gc::{Traverse, VisitError, Visitor};

/// The maximum number of nested drops. In a build without optimisation, each takes 6 KB of stack.
const MAX_DEPTH: usize = 25;

/// The drops of a thread.
struct DropQueue {
    /// The number of nested drops in progress.
    depth: Cell<usize>,
    /// References to drop after those, most recent last.
    waiting: RefCell<Vec<Py<PyAny>>>,
}

thread_local! {
    /// Not reset by a fork: the child continues on the same stack.
    static QUEUE: DropQueue = const {
        DropQueue {
            depth: Cell::new(0),
            waiting: RefCell::new(Vec::new()),
        }
    };
}

/// A reference to the next object of a chain, dropped without recursion.
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
        // SAFETY: only this line takes the reference, and the field is not used after the drop.
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

/// Drop a reference now, or after the drops in progress if they are nested too deeply.
fn drop_reference(reference: Py<PyAny>) {
    // While the thread ends, its queue is gone. Then the reference is dropped here, with recursion.
    let mut reference = Some(reference);
    let _ = QUEUE.try_with(|queue| {
        let depth = queue.depth.get();
        if depth == MAX_DEPTH {
            queue.waiting.borrow_mut().extend(reference.take());
            return;
        }
        queue.depth.set(depth + 1);
        drop(reference.take());
        if depth == 0 {
            // Borrow for each reference: dropping it may add others.
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
