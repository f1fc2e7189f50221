//! The limit of the stack that nested streams and push objects may use.
//! `coroutine/delegate.rs` and `source/async_iter.rs` check it.
//!
//! A user's source may pull another source inside its step, and that one the next; so may an awaitable that a callable returned.
//! CPython limits the recursion of Python code. But a native level in between uses more stack than CPython assumes, and CPython does
//! not count levels that are only native.

use std::cell::Cell;

use pyo3::exceptions::PyRecursionError;
use pyo3::prelude::*;

/// The most bytes of the stack that all levels may use: a quarter of the usual stack of a thread; where its size is unknown, a quarter
/// of the smallest usual stack.
const MOST: usize = if cfg!(target_os = "linux") {
    2 << 20
} else {
    1 << 18
};

/// The bytes that are reserved for the innermost code, unless a quarter of the stack is less.
const RESERVED: usize = 1 << 18;

// Kept in a forked child, which has the same stack.
thread_local! {
    /// The lowest address for nested levels while there is an outermost level; otherwise 0. Stacks grow downwards.
    static END: Cell<usize> = const { Cell::new(0) };
    /// The lowest address that levels may ever use in this thread, once it is known.
    static FLOOR: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A level of nesting: one step of a source, until this is dropped.
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

    /// Refuse to nest deeper, if this is not the outermost level.
    ///
    /// # Errors
    ///
    /// `RecursionError`: too much of the stack is used.
    #[inline]
    pub(crate) fn check(&self) -> PyResult<()> {
        if self.is_outermost { Ok(()) } else { check() }
    }
}

/// Refuse to start a deeper level. Levels that have started may continue.
///
/// # Errors
///
/// `RecursionError`: too much of the stack is used by steps inside one another.
#[inline]
pub(crate) fn check() -> PyResult<()> {
    // There is no limit outside of all levels.
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
        let floor = stack().map_or(0, |(lowest, size)| lowest + RESERVED.min(size / 4));
        FLOOR.set(Some(floor));
        floor
    })
}

/// Return the lowest address of this thread's stack and its size in bytes.
#[cfg(target_os = "linux")]
#[cold]
fn stack() -> Option<(usize, usize)> {
    let mut attributes = std::mem::MaybeUninit::uninit();
    let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the first call initialises the attributes or fails; then they are read and destroyed.
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

/// Return an address in the current stack frame.
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
