//! `TaskNames`: the names of the asyncio tasks of a run, which also identify its tasks in messages. `Engine` holds them.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};

use crate::object::gil_cell::GilCell;

/// The longest text that is kept for the next name.
const MOST_KEPT: usize = 1024;

/// The names: a beginning such as `pages: task `, then the key of the task, or its number if it has none.
#[derive(Debug)]
pub(super) struct TaskNames {
    /// The beginning of each name, and the rest of the last one. One text serves all names, because an allocation takes as long as the
    /// rest of a name.
    text: GilCell<String>,
    /// The length of the beginning.
    beginning: usize,
}

impl TaskNames {
    pub(super) fn new(beginning: &str) -> Self {
        Self {
            beginning: beginning.len(),
            text: GilCell::new(beginning.to_owned()),
        }
    }

    /// Return the name of a task. A key whose `str()` raises is shown by its class.
    #[inline]
    pub(super) fn of<'py>(
        &self,
        py: Python<'py>,
        id: u64,
        key: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyString>> {
        match key {
            None => Ok(self.with_number(py, id)),
            Some(key) => self.with_key(key),
        }
    }

    fn with_key<'py>(&self, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
        let py = key.py();
        // `str()` of an integer takes several times as long.
        if key.is_exact_instance_of::<PyInt>()
            && let Ok(number) = key.extract()
        {
            return Ok(self.with_number(py, number));
        }
        // No borrow is open: the `str()` of a key may run Python code.
        match key.str() {
            Ok(shown) => {
                let shown = shown.to_string_lossy();
                Ok(self.with(py, |text| text.push_str(&shown)))
            }
            Err(error) if error.is_instance_of::<PyException>(py) => {
                let class = key.get_type().name()?;
                let shown = format!("<{class}>");
                Ok(self.with(py, |text| text.push_str(&shown)))
            }
            Err(error) => Err(error),
        }
    }

    fn with_number<'py>(&self, py: Python<'py>, number: u64) -> Bound<'py, PyString> {
        self.with(py, |text| push_number(text, number))
    }

    /// Return the name whose rest `push` appends.
    #[inline]
    fn with<'py>(&self, py: Python<'py>, push: impl FnOnce(&mut String)) -> Bound<'py, PyString> {
        let mut text = self.text.borrow(py);
        text.truncate(self.beginning);
        push(&mut text);
        let name = PyString::new(py, &text);
        if text.capacity() > MOST_KEPT {
            text.truncate(self.beginning);
            text.shrink_to_fit();
        }
        name
    }
}

/// Append a number in decimal digits. A formatter takes several times as long.
#[inline]
fn push_number(text: &mut String, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.push_str(std::str::from_utf8(&digits[first..]).unwrap_or_default());
}
