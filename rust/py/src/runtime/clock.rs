//! The time as a loop tells it, read once for each change of state.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

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
        let is_monotonic =
            callable.is(&monotonic) && callable.is_exact_instance_of::<PyCFunction>();
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
    /// What `time.monotonic` calls, but that this one says by -1 alone, and with 0, that there is no such clock.
    fn PyTime_MonotonicRaw(result: *mut i64) -> std::ffi::c_int;
}

#[cfg(not(Py_3_13))]
unsafe extern "C" {
    /// What `time.monotonic` calls up to 3.12, where no public function tells the same.
    fn _PyTime_GetMonotonicClock() -> i64;
}

/// `time.monotonic()`, to the bit.
#[inline]
fn monotonic(_attached: Python<'_>) -> f64 {
    let nanoseconds = {
        #[cfg(Py_3_13)]
        {
            let mut nanoseconds = 0;
            // SAFETY: attached, and a place for the result.
            unsafe { PyTime_MonotonicRaw(&raw mut nanoseconds) };
            nanoseconds
        }
        #[cfg(not(Py_3_13))]
        // SAFETY: attached; it asks for nothing.
        unsafe {
            _PyTime_GetMonotonicClock()
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "as CPython does it")]
    let nanoseconds = nanoseconds as f64;
    nanoseconds / 1e9
}
