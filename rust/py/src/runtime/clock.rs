//! The clock of an event loop, read once for each change of state. The pool's `Engine` holds it.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use crate::runtime::private_layout::Layout;

/// Reading the clock of `time.monotonic` without a call into Python. The fallback calls `time.monotonic`.
pub(crate) static LAYOUT: Layout = Layout::new("monotonic_clock", self_test);

/// The clock of an event loop.
#[derive(Debug)]
pub(crate) enum Clock {
    /// `time.monotonic`, which the event loops of asyncio use, read without a call into Python.
    Monotonic,
    /// Another callable that returns the seconds.
    Called(Py<PyAny>),
}

impl Clock {
    /// Return the clock that this callable reads. The callable returns seconds.
    pub(crate) fn of(callable: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = callable.py();
        let monotonic = py
            .import(intern!(py, "time"))?
            .getattr(intern!(py, "monotonic"))?;
        // A test may have replaced `time.monotonic`.
        let is_monotonic = LAYOUT.is_used()
            && callable.is(&monotonic)
            && callable.is_exact_instance_of::<PyCFunction>();
        Ok(if is_monotonic {
            Self::Monotonic
        } else {
            Self::Called(callable.clone().unbind())
        })
    }

    /// Return the current time in seconds.
    #[inline]
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<f64> {
        match self {
            Self::Monotonic => Ok(monotonic(py)),
            Self::Called(callable) => callable.bind(py).call0()?.extract(),
        }
    }

    /// Return the callable, for the garbage collector.
    pub(crate) fn callable(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Monotonic => None,
            Self::Called(callable) => Some(callable),
        }
    }
}

#[cfg(Py_3_13)]
unsafe extern "C" {
    /// `time.monotonic`, except that an error is only reported by the result -1.
    fn PyTime_MonotonicRaw(result: *mut i64) -> std::ffi::c_int;
}

/// Return the nanoseconds of `time.monotonic()`, from a public function of CPython or of the system; `None` where there
/// is neither.
#[inline]
fn nanoseconds(_attached: Python<'_>) -> Option<i64> {
    #[cfg(Py_3_13)]
    {
        let mut nanoseconds = 0;
        // SAFETY: attached, with a pointer to the result.
        let status = unsafe { PyTime_MonotonicRaw(&raw mut nanoseconds) };
        (status == 0).then_some(nanoseconds)
    }
    // CPython has no public function for it before 3.13.
    #[cfg(all(not(Py_3_13), target_os = "linux"))]
    {
        let mut time = std::mem::MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: a pointer to the result, which is read only after the call has succeeded.
        let time = unsafe {
            match libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) {
                0 => time.assume_init(),
                _ => return None,
            }
        };
        #[allow(
            clippy::useless_conversion,
            reason = "these are narrower on other systems"
        )]
        Some(i64::from(time.tv_sec) * 1_000_000_000 + i64::from(time.tv_nsec))
    }
    #[cfg(all(not(Py_3_13), not(target_os = "linux")))]
    None
}

/// Exactly `time.monotonic()`; 0 where the clock cannot be read, where the self-test fails.
#[inline]
fn monotonic(attached: Python<'_>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "as CPython does it")]
    let nanoseconds = nanoseconds(attached).unwrap_or(0) as f64;
    nanoseconds / 1e9
}

/// Read the clock before and after a call of `time.monotonic`.
fn self_test(py: Python<'_>) -> PyResult<bool> {
    let time = py.import("time")?.getattr("monotonic")?;
    for _ in 0..2 {
        let before = monotonic(py);
        let between: f64 = time.call0()?.extract()?;
        if !(0.0 < before && before <= between && between <= monotonic(py)) {
            return Ok(false);
        }
    }
    Ok(nanoseconds(py).is_some())
}
