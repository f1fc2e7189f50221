//! From the bytes of a line to text.
//!
//! A file is split at its line ends before it is decoded, so that a bad line costs itself only.
//! That is right for an encoding in which `\n` and `\r` are these bytes and nothing else is, and
//! whose lines can be read one without the other. [`Codec::new`] refuses the rest.

use std::ffi::CString;

use pyo3::exceptions::{PyLookupError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::reader::Script;
use crate::errors;

/// Text in which the encodings that shift, escape or nest show themselves: they make fewer
/// characters of it than it has bytes.
const PROBE: &[u8] = b"+AAo-~{!!~}\x1b$B!!\x1b(B\\n\\u000a";

/// As far as a decoder may look ahead of the first byte of a character.
const AHEAD: [u8; 3] = *b"\n\n\n";

/// What the reader has to know of an encoding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charset {
    /// ASCII means itself in it.
    keeps_ascii: bool,
    is_utf8: bool,
    /// A byte order mark at the beginning of the file is left out.
    pub(super) has_mark: bool,
}

impl Charset {
    /// The shortest way in which these lines become text.
    pub(super) fn script(self, lines: &[u8]) -> Script {
        if self.keeps_ascii && lines.is_ascii() {
            Script::Ascii
        } else if self.is_utf8 && std::str::from_utf8(lines).is_ok() {
            Script::Utf8
        } else {
            Script::Coded
        }
    }
}

/// An encoding, and what to do about bytes that are none of it.
#[derive(Debug)]
pub(super) struct Codec {
    encoding: CString,
    errors: CString,
    pub(super) charset: Charset,
}

impl Codec {
    /// Looks both names up.
    pub(super) fn new(encoding: &Bound<'_, PyAny>, errors: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = encoding.py();
        let codecs = py.import("codecs")?;
        if !errors.is_instance_of::<PyString>() {
            return Err(errors::wrong_type("errors", "a str", errors));
        }
        if !encoding.is_instance_of::<PyString>() {
            return Err(errors::wrong_type("encoding", "a str", encoding));
        }
        let looked_up = codecs
            .call_method1("lookup_error", (errors,))
            .map_err(|error| unknown(py, error, "errors", "an error handler", errors))?;
        drop(looked_up);
        let codec = codecs
            .call_method1("lookup", (encoding,))
            .map_err(|error| unknown(py, error, "encoding", "an encoding", encoding))?;
        let name: String = codec.getattr("name")?.extract()?;
        let has_mark = name == "utf-8-sig";
        let is_utf8 = has_mark || name == "utf-8";
        let keeps_ascii = is_utf8
            || {
                if !can_split(encoding) {
                    return Err(PyValueError::new_err(format!(
                        "encoding must be one whose lines can be told apart by their bytes and read each by itself, as those of UTF-8 and ISO 8859 can, got {}",
                        errors::describe(encoding)
                    )));
                }
                let ascii: Vec<u8> = (0..128).collect();
                decoded(py, &ascii, encoding).is_ok_and(|text| {
                    text.to_str()
                        .is_ok_and(|text| text.as_bytes() == ascii.as_slice())
                })
            };
        let name = if is_utf8 {
            "utf-8".to_owned()
        } else {
            encoding.extract()?
        };
        Ok(Self {
            encoding: CString::new(name)?,
            errors: CString::new(errors.extract::<String>()?)?,
            charset: Charset {
                keeps_ascii,
                is_utf8,
                has_mark,
            },
        })
    }

    /// Decodes a line, whatever is in it.
    ///
    /// What follows the line must be there, or a decoder that looks ahead would take a character
    /// that is cut short for one with the `\n` in it, and repair both away.
    pub(super) fn decode<'py>(
        &self,
        py: Python<'py>,
        mut line: Vec<u8>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let repairs = !self.charset.is_utf8 && self.errors.as_c_str() != c"strict";
        if !repairs || line.last() != Some(&b'\n') {
            return self.decode_exactly(py, &line);
        }
        line.extend(AHEAD);
        let text = self.decode_exactly(py, &line)?.cast_into::<PyString>()?;
        let end = text.len()?.saturating_sub(AHEAD.len()).cast_signed();
        // SAFETY: a string and two places in it; it returns an owned reference or null with an
        // exception.
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_Substring(text.as_ptr(), 0, end)) }
    }

    fn decode_exactly<'py>(&self, py: Python<'py>, line: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: a slice, its length, and two strings that end; it returns an owned reference or
        // null with an exception.
        unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyUnicode_Decode(
                    line.as_ptr().cast(),
                    line.len().cast_signed(),
                    self.encoding.as_ptr(),
                    self.errors.as_ptr(),
                ),
            )
        }
    }
}

/// Text of ASCII. No Python code can run here, since a string is nothing that the collector looks
/// at.
#[inline]
pub(super) fn ascii<'py>(py: Python<'py>, line: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if line.len() < 2 {
        // Of these CPython keeps one each.
        return utf8(py, line);
    }
    // SAFETY: a new string of that many characters of one byte each is filled before anybody sees
    // it; null comes with an exception.
    unsafe {
        let text =
            Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_New(line.len().cast_signed(), 127))?;
        ffi::PyUnicode_1BYTE_DATA(text.as_ptr())
            .copy_from_nonoverlapping(line.as_ptr(), line.len());
        Ok(text)
    }
}

/// Text of UTF-8 that is known to be valid, so that here too no Python code can run.
pub(super) fn utf8<'py>(py: Python<'py>, line: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a slice and its length; it returns an owned reference or null with an exception.
    unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyUnicode_DecodeUTF8Stateful(
                line.as_ptr().cast(),
                line.len().cast_signed(),
                std::ptr::null(),
                std::ptr::null_mut(),
            ),
        )
    }
}

/// Whether a file may be split at its line ends before it is decoded.
fn can_split(encoding: &Bound<'_, PyAny>) -> bool {
    let py = encoding.py();
    let is_itself = |byte: &str| {
        PyString::new(py, byte)
            .call_method1("encode", (encoding,))
            .and_then(|bytes| bytes.extract::<Vec<u8>>())
            .is_ok_and(|bytes| bytes == byte.as_bytes())
    };
    is_itself("\n")
        && is_itself("\r")
        && decoded(py, PROBE, encoding)
            .and_then(|text| text.len())
            .is_ok_and(|count| count == PROBE.len())
}

fn decoded<'py>(
    py: Python<'py>,
    bytes: &[u8],
    encoding: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyString>> {
    Ok(PyBytes::new(py, bytes)
        .call_method1("decode", (encoding,))?
        .cast_into()?)
}

/// The `ValueError` for a name that Python does not know.
fn unknown(
    py: Python<'_>,
    error: PyErr,
    parameter: &str,
    what: &str,
    name: &Bound<'_, PyAny>,
) -> PyErr {
    if !error.is_instance_of::<PyLookupError>(py) {
        return error;
    }
    let unknown = PyValueError::new_err(format!(
        "{parameter} must name {what} that Python knows, got {}",
        errors::describe(name)
    ));
    unknown.set_cause(py, Some(error));
    unknown
}
