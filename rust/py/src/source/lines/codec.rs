//! Decoding the bytes of a line. `PyLinesSource` decodes each line with it; `reader.rs` classifies each batch.
//!
//! A file is split at its line ends before it is decoded, so a bad line does not affect the others. This is correct for an
//! encoding in which `\n` and `\r` are these bytes and no other character contains them, and whose lines can be decoded
//! independently. [`Codec::new`] refuses other encodings.

use std::ffi::CString;

use pyo3::exceptions::{PyLookupError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::reader::Script;
use crate::errors;

/// Bytes that reveal encodings with shift or escape sequences: these decode them to fewer characters than bytes.
const PROBE: &[u8] = b"+AAo-~{!!~}\x1b$B!!\x1b(B\\n\\u000a";

/// As many line ends as a decoder may look ahead behind the first byte of a character.
const LOOKAHEAD: [u8; 3] = *b"\n\n\n";

/// The properties of an encoding that the reader uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charset {
    /// Whether each ASCII byte stands for its ASCII character.
    keeps_ascii: bool,
    is_utf8: bool,
    /// Whether a byte order mark at the start of the file is skipped.
    pub(super) has_mark: bool,
}

impl Charset {
    /// Return the fastest correct way to decode these lines.
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

/// An encoding, and the handler of its decoding errors.
#[derive(Debug)]
pub(super) struct Codec {
    encoding: CString,
    errors: CString,
    pub(super) charset: Charset,
}

impl Codec {
    /// Look up both names.
    pub(super) fn new(encoding: &Bound<'_, PyAny>, errors: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = encoding.py();
        let codecs = py.import("codecs")?;
        if !errors.is_instance_of::<PyString>() {
            return Err(errors::wrong_type("errors", "a str", errors));
        }
        if !encoding.is_instance_of::<PyString>() {
            return Err(errors::wrong_type("encoding", "a str", encoding));
        }
        let handler = codecs
            .call_method1("lookup_error", (errors,))
            .map_err(|error| unknown(py, error, "errors", "an error handler", errors))?;
        drop(handler);
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

    /// Decode a line with any content.
    ///
    /// An error handler that replaces bytes needs bytes behind the line end. Otherwise a decoder that looks ahead would treat a
    /// truncated character and the `\n` as one character, and replace both.
    pub(super) fn decode<'py>(
        &self,
        py: Python<'py>,
        mut line: Vec<u8>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let repairs = !self.charset.is_utf8 && self.errors.as_c_str() != c"strict";
        if !repairs || line.last() != Some(&b'\n') {
            return self.decode_exactly(py, &line);
        }
        line.extend(LOOKAHEAD);
        let text = self.decode_exactly(py, &line)?.cast_into::<PyString>()?;
        let end = text.len()?.saturating_sub(LOOKAHEAD.len()).cast_signed();
        // SAFETY: a string and two indices in it; it returns an owned reference or null with an
        // exception.
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_Substring(text.as_ptr(), 0, end)) }
    }

    fn decode_exactly<'py>(&self, py: Python<'py>, line: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: a slice, its length, and two null-terminated strings; it returns an owned reference or
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

/// Make text of ASCII bytes. No Python code can run here, because the collector does not track strings.
#[inline]
pub(super) fn ascii<'py>(py: Python<'py>, line: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if line.len() < 2 {
        // CPython shares the strings of length 0 and 1.
        return utf8(py, line);
    }
    // SAFETY: a new string of that many one-byte characters is filled before other code can read it; null comes with an
    // exception.
    unsafe {
        let text =
            Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_New(line.len().cast_signed(), 127))?;
        ffi::PyUnicode_1BYTE_DATA(text.as_ptr())
            .copy_from_nonoverlapping(line.as_ptr(), line.len());
        Ok(text)
    }
}

/// Make text of valid UTF-8. No Python code can run here either.
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

/// Return whether a file may be split at its line ends before it is decoded.
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

/// Convert the `LookupError` of an unknown name to a `ValueError`.
fn unknown(
    py: Python<'_>,
    error: PyErr,
    parameter: &str,
    kind: &str,
    name: &Bound<'_, PyAny>,
) -> PyErr {
    if !error.is_instance_of::<PyLookupError>(py) {
        return error;
    }
    let unknown = PyValueError::new_err(format!(
        "{parameter} must name {kind} that Python knows, got {}",
        errors::describe(name)
    ));
    unknown.set_cause(py, Some(error));
    unknown
}
