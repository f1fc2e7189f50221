//! How much of the stack sources use that pull one another.
//!
//! A source of somebody else's may pull another one inside its step, and that one the next. Where
//! all of it is Python, CPython's own limit ends that; but a level of ours in between takes more of
//! the stack than CPython reckons with, and one that is only ours it does not count at all.

use std::cell::Cell;

use pyo3::exceptions::PyRecursionError;
use pyo3::prelude::*;

/// How many bytes of the stack all of them may use: a quarter of what a thread has as a rule.
const MOST: usize = 2 << 20;

thread_local! {
    /// Where the outermost of them stands; 0 if there is none.
    static OUTERMOST: Cell<usize> = const { Cell::new(0) };
}

/// A step of a source, until it is dropped.
pub(crate) struct Level {
    is_outermost: bool,
}

impl Level {
    #[inline]
    pub(crate) fn enter() -> Self {
        let is_outermost = OUTERMOST.get() == 0;
        if is_outermost {
            OUTERMOST.set(here());
        }
        Self { is_outermost }
    }

    /// Refuses to go deeper. What was begun may go on: it is as deep as it was.
    ///
    /// # Errors
    ///
    /// `RecursionError`: too much of the stack is used.
    #[inline]
    pub(crate) fn check(&self) -> PyResult<()> {
        if !self.is_outermost && OUTERMOST.get().abs_diff(here()) > MOST {
            return Err(too_deep());
        }
        Ok(())
    }
}

impl Drop for Level {
    #[inline]
    fn drop(&mut self) {
        if self.is_outermost {
            OUTERMOST.set(0);
        }
    }
}

/// An address in the frame of now.
#[inline]
fn here() -> usize {
    let marker = 0_u8;
    std::hint::black_box(&raw const marker).addr()
}

#[cold]
fn too_deep() -> PyErr {
    PyRecursionError::new_err(
        "sources are nested too deeply: each pulls the next one inside its own step; put .eager(1) between them, whose source is pulled by a task",
    )
}
