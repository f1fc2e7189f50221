//! How much of the stack streams and push objects use that await one another.
//!
//! A source of somebody else's may pull another one inside its step, and that one the next; so may what a callable returned.
//! Where all of it is Python, CPython's own limit ends that; but a level of ours in between takes more of
//! the stack than CPython reckons with, and one that is only ours it does not count at all.

use std::cell::Cell;

use pyo3::exceptions::PyRecursionError;
use pyo3::prelude::*;

/// How many bytes of the stack all of them may use: a quarter of what a thread has as a rule; and where it cannot be asked
/// what it has, a quarter of what it has at least.
const MOST: usize = if cfg!(target_os = "linux") {
    2 << 20
} else {
    1 << 18
};

/// How many are left to what runs at the bottom, unless a quarter of the stack is less.
const LEFT: usize = 1 << 18;

// Kept in a forked child, which has the same stack.
thread_local! {
    /// Where they are to end, if there is an outermost one; else 0. Stacks grow downwards.
    static END: Cell<usize> = const { Cell::new(0) };
    /// Where they are to end at the latest, once that is known.
    static FLOOR: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A step of a source, until it is dropped.
pub(crate) struct Level {
    is_outermost: bool,
}

impl Level {
    #[inline]
    pub(crate) fn enter() -> Self {
        let is_outermost = END.get() == 0;
        if is_outermost {
            END.set(here().saturating_sub(MOST).max(floor()).max(1));
        }
        Self { is_outermost }
    }

    /// Refuses to go deeper, if it is inside another one.
    ///
    /// # Errors
    ///
    /// `RecursionError`: too much of the stack is used.
    #[inline]
    pub(crate) fn check(&self) -> PyResult<()> {
        if self.is_outermost { Ok(()) } else { check() }
    }
}

/// Refuses to begin something deeper. What was begun may go on: it is as deep as it was.
///
/// # Errors
///
/// `RecursionError`: too much of the stack is used by steps inside one another.
#[inline]
pub(crate) fn check() -> PyResult<()> {
    // Outside every step there is no end.
    let end = END.get();
    if end != 0 && here() < end {
        return Err(too_deep());
    }
    Ok(())
}

impl Drop for Level {
    #[inline]
    fn drop(&mut self) {
        if self.is_outermost {
            END.set(0);
        }
    }
}

#[inline]
fn floor() -> usize {
    FLOOR.get().unwrap_or_else(|| {
        let floor = stack().map_or(0, |(lowest, size)| lowest + LEFT.min(size / 4));
        FLOOR.set(Some(floor));
        floor
    })
}

/// The lowest address of this thread's stack, and how many bytes it has.
#[cfg(target_os = "linux")]
#[cold]
fn stack() -> Option<(usize, usize)> {
    let mut attributes = std::mem::MaybeUninit::uninit();
    let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the first call fills the attributes in or fails; then they are read, and given back.
    let failed = unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let failed =
            libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        failed
    };
    (failed == 0).then(|| (lowest.addr(), size))
}

#[cfg(not(target_os = "linux"))]
fn stack() -> Option<(usize, usize)> {
    None
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
        "streams or push objects are nested too deeply: each awaits the next one inside its own step; put .prefetch(1) between streams, whose source is pulled by a task, and a PushPullBufferObj between push objects",
    )
}
