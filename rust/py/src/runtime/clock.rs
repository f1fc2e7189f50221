//! The time as a loop tells it, read once for each change of state.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use crate::runtime::private_layout::Layout;

/// Reading the clock of `time.monotonic` without a call into Python. The fallback calls `time.monotonic`.
pub(crate) static LAYOUT: Layout = Layout::new("monotonic_clock", self_test);

/// The clock of a loop.
#[derive(Debug)]
pub(crate) enum Clock {
    /// `time.monotonic`, read without a call into Python: what the loops of asyncio go by.
    Monotonic,
    /// Whatever else gives the seconds.
    Called(Py<PyAny>),
}

impl Clock {
    /// What a callable that gives the seconds reads.
    pub(crate) fn of(callable: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = callable.py();
        let monotonic = py
            .import(intern!(py, "time"))?
            .getattr(intern!(py, "monotonic"))?;
        // A test may have put a function of its own in that place.
        let is_monotonic = LAYOUT.is_used()
            && callable.is(&monotonic)
            && callable.is_exact_instance_of::<PyCFunction>();
        Ok(if is_monotonic {
            Self::Monotonic
        } else {
            Self::Called(callable.clone().unbind())
        })
    }

    /// The seconds of now.
    #[inline]
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<f64> {
        match self {
            Self::Monotonic => Ok(monotonic(py)),
            Self::Called(callable) => callable.bind(py).call0()?.extract(),
        }
    }

    /// The callable that the collector is to see.
    pub(crate) fn callable(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Monotonic => None,
            Self::Called(callable) => Some(callable),
        }
    }
}

#[cfg(Py_3_13)]
unsafe extern "C" {
    /// `time.monotonic`, except that it reports an error by its result alone, which is -1 then.
    fn PyTime_MonotonicRaw(result: *mut i64) -> std::ffi::c_int;
}

/// The nanoseconds of `time.monotonic()`, by a public function of CPython or of the system; `None` where neither has them.
#[inline]
fn nanoseconds(_attached: Python<'_>) -> Option<i64> {
    #[cfg(Py_3_13)]
    {
        let mut nanoseconds = 0;
        // SAFETY: attached, and a place for the result.
        let status = unsafe { PyTime_MonotonicRaw(&raw mut nanoseconds) };
        (status == 0).then_some(nanoseconds)
    }
    // CPython has no public function for it before 3.13.
    #[cfg(all(not(Py_3_13), target_os = "linux"))]
    {
        let mut time = std::mem::MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: a place for the result, which is read if the call filled it in.
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

/// `time.monotonic()`, to the bit; 0 where it cannot be read, which the self-test has found out.
#[inline]
fn monotonic(attached: Python<'_>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "as CPython does it")]
    let nanoseconds = nanoseconds(attached).unwrap_or(0) as f64;
    nanoseconds / 1e9
}

/// Reads the clock before and after CPython does.
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
