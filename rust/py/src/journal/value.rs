//! `Stored`: the encoding of results. `file.rs` encodes and decodes them for the pool.
//!
//! Text, bytes and constants are stored as they are. Everything else is a pickle, which only a program that trusts the file may read.

use std::borrow::Cow;

use headrace_core::journal::End;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};

const TEXT: u8 = 0;
const BYTES: u8 = 1;
const JSON: u8 = 2;
const PICKLE: u8 = 3;

static PICKLE_MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

fn pickle(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    let module =
        PICKLE_MODULE.get_or_try_init(py, || PyResult::Ok(py.import("pickle")?.unbind()))?;
    Ok(module.bind(py))
}

/// An encoded result, and the number of its encoding.
#[derive(Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) format: u8,
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl<'a> Stored<'a> {
    /// Encode a result. The errors are those of `pickle`.
    pub(crate) fn encode(value: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        let py = value.py();
        if let Ok(text) = value.cast_exact::<PyString>()
            && let Ok(text) = text.to_str()
        {
            return Ok(Self::text(text));
        }
        if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            return Ok(Self {
                format: BYTES,
                bytes: bytes.as_bytes().into(),
            });
        }
        if let Some(text) = constant(value) {
            return Ok(Self {
                format: JSON,
                bytes: text.into_bytes().into(),
            });
        }
        let pickled = pickle(py)?.call_method1(intern!(py, "dumps"), (value, 5))?;
        let bytes = pickled.cast::<PyBytes>()?.as_bytes().to_vec();
        Ok(Self {
            format: PICKLE,
            bytes: bytes.into(),
        })
    }

    /// Store text as it is.
    pub(crate) fn text(text: &'a str) -> Self {
        Self {
            format: TEXT,
            bytes: text.as_bytes().into(),
        }
    }

    /// Store a text of JSON.
    pub(crate) fn json(text: &'a str) -> Self {
        Self {
            format: JSON,
            bytes: text.as_bytes().into(),
        }
    }

    /// Store nothing.
    pub(crate) fn nothing() -> Self {
        Self {
            format: BYTES,
            bytes: Cow::Borrowed(&[]),
        }
    }
}

/// Return the JSON of a constant, which decodes to an equal object of the same type.
fn constant(value: &Bound<'_, PyAny>) -> Option<String> {
    if value.is_none() {
        return Some("null".to_owned());
    }
    if let Ok(value) = value.cast_exact::<PyBool>() {
        return Some(value.is_true().to_string());
    }
    if value.is_exact_instance_of::<PyInt>() {
        return value.extract::<i64>().ok().map(|value| value.to_string());
    }
    if value.is_exact_instance_of::<PyFloat>() {
        let value: f64 = value.extract().ok()?;
        // Debug output always has a point or an exponent, so it is read as a float.
        return value.is_finite().then(|| format!("{value:?}"));
    }
    None
}

/// Decode a result.
pub(super) fn decode<'py>(py: Python<'py>, end: &End<'_>) -> PyResult<Bound<'py, PyAny>> {
    decode_stored(py, end.format, end.value)
}

/// Decode a result that was stored in this format. A pickle may run any code.
#[pyfunction]
pub(super) fn decode_stored<'py>(
    py: Python<'py>,
    format: u8,
    stored: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    match format {
        TEXT => match std::str::from_utf8(stored) {
            Ok(text) => Ok(PyString::new(py, text).into_any()),
            Err(_) => Err(PyValueError::new_err(
                "a stored text is not UTF-8: the file was changed",
            )),
        },
        BYTES => Ok(PyBytes::new(py, stored).into_any()),
        JSON => py
            .import("json")?
            .call_method1(intern!(py, "loads"), (PyBytes::new(py, stored),)),
        PICKLE => pickle(py)?.call_method1(intern!(py, "loads"), (PyBytes::new(py, stored),)),
        other => Err(PyValueError::new_err(format!(
            "format {other} of a stored result is not known to this version of headrace"
        ))),
    }
}
