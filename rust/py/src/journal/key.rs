//! The encoding of keys: `str`, `int`, `bytes`, and tuples of them. `file.rs` encodes and decodes them; `reader.rs` decodes them.
//!
//! A key is a tag and its content. Equal keys have equal encodings, in every process.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyInt, PyString, PyTuple};

use crate::errors;

const TEXT: u8 = b's';
/// Text that is not valid UTF-8, because it has surrogates.
const SURROGATES: u8 = b'u';
const INT: u8 = b'i';
const BYTES: u8 = b'b';
const TUPLE: u8 = b't';

/// How deep tuples may be nested. Encoding and decoding are recursive.
const MAX_DEPTH: usize = 100;

/// Append the encoded key to `out`.
///
/// # Errors
///
/// `TypeError` for an object of another type; `ValueError` for tuples that are nested too deeply, or an item of 4 GiB or more.
pub(super) fn encode(out: &mut Vec<u8>, key: &Bound<'_, PyAny>) -> PyResult<()> {
    encode_at(out, key, 0)
}

fn encode_at(out: &mut Vec<u8>, key: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    let py = key.py();
    if let Ok(text) = key.cast::<PyString>() {
        if let Ok(text) = text.to_str() {
            out.push(TEXT);
            out.extend_from_slice(text.as_bytes());
        } else {
            let encode = intern!(py, "encode");
            let bytes = text.call_method1(encode, ("utf-8", "surrogatepass"))?;
            out.push(SURROGATES);
            out.extend_from_slice(bytes.cast::<PyBytes>()?.as_bytes());
        }
    } else if let Ok(bytes) = key.cast::<PyBytes>() {
        out.push(BYTES);
        out.extend_from_slice(bytes.as_bytes());
    } else if key.is_instance_of::<PyInt>() && !key.is_instance_of::<PyBool>() {
        out.push(INT);
        // As hexadecimal text: CPython refuses to convert long integers to decimal text.
        let text = py
            .import("builtins")?
            .call_method1(intern!(py, "hex"), (key,))?;
        out.extend_from_slice(text.cast::<PyString>()?.to_str()?.as_bytes());
    } else if let Ok(items) = key.cast::<PyTuple>() {
        if depth == MAX_DEPTH {
            return Err(PyValueError::new_err(format!(
                "a key of a journal may have at most {MAX_DEPTH} tuples inside one another"
            )));
        }
        out.push(TUPLE);
        for item in items {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            encode_at(out, &item, depth + 1)?;
            let length = u32::try_from(out.len() - start - 4).map_err(|_| {
                PyValueError::new_err("an item of a key must be shorter than 4 GiB")
            })?;
            out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        }
    } else {
        return Err(PyTypeError::new_err(format!(
            "a key of a journal must be a str, int or bytes, or a tuple of these, got {}",
            errors::describe(key)
        )));
    }
    Ok(())
}

/// Decode a key.
///
/// # Errors
///
/// `ValueError` for bytes that are no key.
pub(super) fn decode<'py>(py: Python<'py>, encoded: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    decode_at(py, encoded, 0)
}

fn decode_at<'py>(py: Python<'py>, encoded: &[u8], depth: usize) -> PyResult<Bound<'py, PyAny>> {
    let bad = || PyValueError::new_err("this record of the journal has no valid key");
    let (tag, content) = encoded.split_first().ok_or_else(bad)?;
    match *tag {
        TEXT => {
            let text = std::str::from_utf8(content).map_err(|_| bad())?;
            Ok(PyString::new(py, text).into_any())
        }
        SURROGATES => PyBytes::new(py, content)
            .call_method1(intern!(py, "decode"), ("utf-8", "surrogatepass")),
        BYTES => Ok(PyBytes::new(py, content).into_any()),
        INT => {
            let text = std::str::from_utf8(content).map_err(|_| bad())?;
            py.get_type::<PyInt>().call1((text, 16))
        }
        TUPLE if depth < MAX_DEPTH => {
            let mut items = Vec::new();
            let mut rest = content;
            while let Some((length, more)) = rest.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                let (item, more) = more.split_at_checked(length).ok_or_else(bad)?;
                items.push(decode_at(py, item, depth + 1)?);
                rest = more;
            }
            if !rest.is_empty() {
                return Err(bad());
            }
            Ok(PyTuple::new(py, items)?.into_any())
        }
        _ => Err(bad()),
    }
}
