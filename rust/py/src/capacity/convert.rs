//! Converts limits and snapshots to and from tuples, for which the Python side has classes.
//! `node.rs` and `lease.rs` use it.

use std::time::Duration;

use headrace_core::capacity::{Amount, Limit, ResourceId, Snapshot, Tree};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::tree::TreeHandle;
use super::{arguments, breaker};
use crate::errors;

/// Limits as Python passes them: resource, kind, amount, `per`, burst. An adaptive limit has its start, minimum and maximum there, and
/// an auto rate has its start, `per`, and a tuple of burst, minimum and maximum.
pub(super) type LimitTuples<'py> = Vec<(
    Bound<'py, PyString>,
    String,
    Bound<'py, PyAny>,
    f64,
    Option<Bound<'py, PyAny>>,
)>;

// The kinds of limits.
const NUMBER: &str = "number";
const RATE: &str = "rate";
const BUDGET: &str = "budget";
const ADAPTIVE: &str = "adaptive";
const AUTO: &str = "auto";

/// Convert limits for the core.
pub(super) fn limits_to_core(
    py: Python<'_>,
    handle: &TreeHandle,
    limits: LimitTuples<'_>,
) -> PyResult<Vec<(ResourceId, Limit)>> {
    let limits = limits.into_iter().map(|(name, kind, number, per, burst)| {
        let number = arguments::amount("limit", &number)?;
        let limit = match kind.as_str() {
            NUMBER => Limit::Slots(number),
            RATE => Limit::Rate {
                amount: number,
                // The core refuses a period that is too long, with the name of the resource.
                per: Duration::try_from_secs_f64(per).unwrap_or(Duration::MAX),
                burst: (burst.map(|burst| arguments::amount("burst", &burst))).transpose()?,
            },
            ADAPTIVE => Limit::Adaptive {
                start: number,
                minimum: Amount::from_f64(per).unwrap_or(Amount::MAX),
                maximum: (burst.map(|burst| arguments::amount("maximum", &burst)))
                    .transpose()?
                    .unwrap_or(Amount::MAX),
            },
            AUTO => {
                let (burst, minimum, maximum) =
                    burst.map_or_else(|| Ok((None, None, None)), |bounds| bounds.extract())?;
                let bound = |name, value: Option<Bound<'_, PyAny>>| {
                    value
                        .map(|value| arguments::amount(name, &value))
                        .transpose()
                };
                Limit::AutoRate {
                    start: number,
                    per: Duration::try_from_secs_f64(per).unwrap_or(Duration::MAX),
                    burst: bound("burst", burst)?,
                    minimum: bound("minimum", minimum)?.unwrap_or(Amount::ZERO),
                    maximum: bound("maximum", maximum)?.unwrap_or(Amount::MAX),
                }
            }
            _ => Limit::Budget(number),
        };
        let name = errors::text("a resource of limit", &name)?;
        Ok((handle.intern_resource(py, &name), limit))
    });
    limits.collect()
}

/// Convert a limit to such a tuple, without its resource.
pub(super) fn limit_to_python<'py>(
    py: Python<'py>,
    limit: &Limit,
) -> PyResult<Bound<'py, PyTuple>> {
    match *limit {
        Limit::Slots(held) | Limit::Adaptive { start: held, .. } => {
            (NUMBER, arguments::number(py, held), 0.0, py.None())
        }
        Limit::Rate { amount, per, burst }
        | Limit::AutoRate {
            start: amount,
            per,
            burst,
            ..
        } => (
            RATE,
            arguments::number(py, amount),
            per.as_secs_f64(),
            burst.map_or_else(|| py.None(), |burst| arguments::number(py, burst).unbind()),
        ),
        Limit::Budget(spent) => (BUDGET, arguments::number(py, spent), 0.0, py.None()),
    }
    .into_pyobject(py)
}

/// Create a dictionary of resource to number.
pub(super) fn by_name<'py>(
    py: Python<'py>,
    tree: &Tree,
    amounts: impl Iterator<Item = (ResourceId, Amount)>,
) -> PyResult<Bound<'py, PyDict>> {
    let named = PyDict::new(py);
    for (resource, held) in amounts {
        named.set_item(&*tree.resource_name(resource), arguments::number(py, held))?;
    }
    Ok(named)
}

/// Convert a snapshot to nested tuples. The recursion is as deep as the tree, which is bounded.
pub(super) fn snapshot_to_python<'py>(
    py: Python<'py>,
    tree: &Tree,
    snapshot: &Snapshot,
) -> PyResult<Bound<'py, PyTuple>> {
    let usage = &snapshot.usage;
    let resources = PyList::empty(py);
    for one in &usage.resources {
        resources.append((
            &*tree.resource_name(one.resource),
            limit_to_python(py, &one.limit)?,
            arguments::number(py, one.held),
            arguments::number(py, one.reserved),
        ))?;
    }
    let children = PyList::empty(py);
    for child in &snapshot.children {
        children.append(snapshot_to_python(py, tree, child)?)?;
    }
    let name = usage.name.as_deref();
    (
        (
            name,
            resources,
            (usage.weight.as_f64(), arguments::number(py, usage.floor)),
            usage.waiting,
        ),
        (usage.permits, usage.granted, usage.bypassed),
        (
            usage.mean_hold.map(|hold| hold.as_secs_f64()),
            usage.received,
            usage.due,
        ),
        (usage.paused, usage.closed),
        usage.cooldown.map(|cooldown| {
            let resource = cooldown.resource.map(|id| tree.resource_name(id));
            (
                resource.map(|name| name.to_string()),
                cooldown.left.as_secs_f64(),
                cooldown.window,
                cooldown.events,
            )
        }),
        usage.breaker.map(breaker::status_to_python),
        children,
    )
        .into_pyobject(py)
}
