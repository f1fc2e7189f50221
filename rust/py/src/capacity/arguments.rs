//! Parses amounts, costs, priorities and weights, and converts amounts for Python.
//! `node.rs`, `request.rs` and `permit.rs` use it.

use std::borrow::Cow;

use headrace_core::capacity::{Amount, AmountError, Cost, CostError, OwnerId, ResourceId, Weight};
use pyo3::Borrowed;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyMapping, PyString};

use crate::errors::{self, wrong_value};
use crate::runtime::task_id;

/// An argument whose default is not `None`: `None` is refused like any other wrong value.
#[derive(Clone, Copy)]
pub(crate) enum Argument<'a, 'py> {
    Default,
    Value(Borrowed<'a, 'py, PyAny>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Argument<'a, 'py> {
    type Error = std::convert::Infallible;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self::Value(value))
    }
}

/// Parse `owner`: whether a lease belongs to the current task (the default) or to no task (`None`).
pub(super) fn is_owned(owner: Argument<'_, '_>) -> PyResult<bool> {
    match owner {
        Argument::Default => Ok(true),
        Argument::Value(value) if value.is_none() => Ok(false),
        Argument::Value(value) => Err(errors::wrong_type(
            "owner",
            "None, or left out for the current task",
            &value,
        )),
    }
}

/// Return the owner of a lease that belongs to the current task, or to this thread if no task runs.
#[inline]
pub(super) fn current_owner(py: Python<'_>) -> PyResult<OwnerId> {
    Ok(OwnerId(task_id::current(py)?.get()))
}

/// Parse a string or `None`.
pub(super) fn text<'a>(
    parameter: &str,
    value: Option<&'a Bound<'_, PyAny>>,
) -> PyResult<Option<Cow<'a, str>>> {
    value
        .map(|value| match value.cast::<PyString>() {
            Ok(text) => errors::text(parameter, text),
            Err(_) => Err(errors::wrong_type(parameter, "a string or None", value)),
        })
        .transpose()
}

/// Parse an amount, which must not be negative.
pub(super) fn amount(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<Amount> {
    amount_of(value, || parameter.to_owned())
}

/// Parse an amount. `parameter` is called only for the message of an error.
fn amount_of(value: &Bound<'_, PyAny>, parameter: impl Fn() -> String) -> PyResult<Amount> {
    let wrong_value = |rule| wrong_value(&parameter(), rule, value);
    let too_large = || wrong_value("be at most 10**12");
    if let Ok(number) = value.cast::<PyInt>()
        && !value.is_instance_of::<PyBool>()
    {
        return match number.extract::<u64>() {
            Ok(units) if units <= Amount::MAX.as_micros() / Amount::ONE.as_micros() => {
                Ok(Amount::units(units))
            }
            _ if number.lt(0)? => Err(wrong_value("not be negative")),
            _ => Err(too_large()),
        };
    }
    let Ok(number) = value.cast::<PyFloat>() else {
        return Err(errors::wrong_type(&parameter(), "a number", value));
    };
    let units = number.value();
    if units.is_infinite() {
        return Err(wrong_value("be finite"));
    }
    Amount::from_f64(units).map_err(|error| match error {
        AmountError::NotANumber => wrong_value("be finite"),
        AmountError::Negative => wrong_value("not be negative"),
        AmountError::TooLarge | AmountError::TooSmall => too_large(),
    })
}

/// Convert an amount to an `int` if it is whole, and otherwise to a `float`.
pub(super) fn number(py: Python<'_>, amount: Amount) -> Bound<'_, PyAny> {
    let (micros, one) = (amount.as_micros(), Amount::ONE.as_micros());
    if micros % one == 0 {
        PyInt::new(py, micros / one).into_any()
    } else {
        PyFloat::new(py, amount.as_f64()).into_any()
    }
}

/// Parse a cost: a number of slots, or a mapping of resource to number. `known` finds a resource by its name.
pub(super) fn cost(
    value: &Bound<'_, PyAny>,
    known: impl Fn(&str) -> PyResult<ResourceId>,
) -> PyResult<Cost> {
    let made = if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>() {
        Cost::of(ResourceId::SLOTS, amount("cost", value)?)
    } else if let Ok(parts) = value.cast::<PyDict>()
        && parts.len() == 1
        && let Some((name, amount)) = parts.iter().next()
    {
        let (resource, amount) = part(&name, &amount, &known)?;
        Cost::of(resource, amount)
    } else if let Ok(parts) = value.cast::<PyDict>() {
        let parts = parts
            .iter()
            .map(|(name, value)| part(&name, &value, &known));
        Cost::new(parts.collect::<PyResult<Vec<_>>>()?)
    } else if let Ok(parts) = value.cast::<PyMapping>() {
        let parts = parts.items()?.into_iter().map(|pair| {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            part(&name, &value, &known)
        });
        Cost::new(parts.collect::<PyResult<Vec<_>>>()?)
    } else {
        return Err(errors::wrong_type(
            "cost",
            "a number or a mapping of resource to number",
            value,
        ));
    };
    made.map_err(|error| match error {
        CostError::Zero => wrong_value("cost", "have a positive amount", value),
        CostError::Twice(_) => wrong_value("cost", "name each resource once", value),
    })
}

fn part(
    name: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    known: impl Fn(&str) -> PyResult<ResourceId>,
) -> PyResult<(ResourceId, Amount)> {
    let Ok(text) = name.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!(
            "the resources of cost must be strings, got {}",
            errors::describe(name)
        )));
    };
    let text = errors::text("a resource of cost", text)?;
    let amount = amount_of(value, || format!("cost[{text:?}]"))?;
    Ok((known(&text)?, amount))
}

/// Parse a priority.
pub(super) fn priority(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(errors::wrong_type("priority", "an integer", value));
    }
    value
        .extract()
        .map_err(|_| wrong_value("priority", "be between -2**31 and 2**31 - 1", value))
}

/// Parse a weight.
pub(super) fn weight(weight: &Bound<'_, PyAny>) -> PyResult<Weight> {
    let is_number = weight.is_instance_of::<PyInt>() || weight.is_instance_of::<PyFloat>();
    if !is_number || weight.is_instance_of::<PyBool>() {
        return Err(errors::wrong_type("weight", "a number", weight));
    }
    let number: f64 = weight.extract().unwrap_or(f64::INFINITY);
    Weight::from_f64(number).map_err(|_| {
        let (least, most) = (Weight::MIN.as_f64(), Weight::MAX.as_f64());
        wrong_value("weight", &format!("be between {least} and {most}"), weight)
    })
}
