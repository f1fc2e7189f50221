//! References to what may have a long line behind it, and how they are let go of without recursion.
//!
//! When the last reference to a link goes, so does the link's to its source, and that may be the last one to the next: a
//! line of 10,000 links, dropped, is 10,000 deallocators inside one another. CPython has a way out for its containers and for
//! classes written in Python, the trashcan. Up to 3.12 it lets 50 of them nest; but in 3.13 as many as its count of C frames
//! has left, which is up to 10,000: 8 MB of stack for classes like these, where a thread may have half of one.
//!
//! So each link, feed, merge and fan refers by a [`IterativeDrop`] to what is next along the line. Of those [`MOST`] nest, and then
//! references wait, in a list of the thread, until the outermost is through. A line that is no longer than that is dropped as if
//! this were not there: in order, and at once.
//!
//! **It is the last field of what holds it**, or dropped last where that is taken apart by hand. There may be other references to
//! the same object beside it, of the line that runs the link, or of a pull that waits in it. Those only count down then, and
//! need not be such ones, which would cost something an item.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug};
use std::mem::ManuallyDrop;
use std::ops::Deref;

use pyo3::prelude::*;

/// How many may be dropped inside one another: in a build without optimisation, each takes 6 KB.
const MOST: usize = 25;

/// Those of a thread.
struct DropQueue {
    /// How many are being dropped now, each inside the one before.
    depth: Cell<usize>,
    /// What was too deep, the last one last.
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

/// A reference along a line: see the top of this file.
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
        // SAFETY: here alone, and nobody looks at it after its drop.
        let reference = unsafe { ManuallyDrop::take(&mut self.0) };
        drop_reference(reference.into_any());
    }
}

impl<T> Debug for IterativeDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn drop_reference(reference: Py<PyAny>) {
    // Borrowed by the closure as long as there is the list: when the thread ends, that goes, and drops what it has as it is.
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
            // Not one borrow for all: each of them may add to the list.
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
