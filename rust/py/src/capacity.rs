//! The tree of capacities, as Python sees it.

use std::ffi::CStr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use headrace_core::sched as core;
use pyo3::exceptions::{PyResourceWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};

use crate::awaitable::ready::{Operation, Ready};
use crate::awaitable::{Class, Native, Seen, Stopped};
use crate::errors;
use crate::fork::Home;

/// One node of a tree of capacities.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Capacity {
    home: Home,
    tree: Arc<core::Tree>,
    node: core::NodeId,
}

#[pymethods]
impl Capacity {
    #[new]
    #[pyo3(signature = (limit, parent = None))]
    fn new(
        py: Python<'_>,
        limit: &Bound<'_, PyAny>,
        parent: Option<&Bound<'_, Self>>,
    ) -> PyResult<Self> {
        let options = core::NodeOptions::slots(amount("limit", limit)?);
        let (tree, node) = match parent {
            None => {
                let tree = core::Tree::new(core::Settings::default());
                let node = tree.root(options);
                (tree, node)
            }
            Some(parent) => {
                let parent = parent.get();
                parent.check(py)?;
                (
                    Arc::clone(&parent.tree),
                    parent.tree.add(parent.node, options),
                )
            }
        };
        let node = node.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self {
            home: Home::here(),
            tree,
            node,
        })
    }

    /// An awaitable that gives a lease.
    fn acquire<'py>(
        &self,
        py: Python<'py>,
        cost: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.check(py)?;
        let cost = amount("cost", cost)?;
        let ask = core::Ask::slots(self.node, cost);
        self.tree
            .check_ask(&ask)
            .map_err(|error| above(cost, &error))?;
        Ready::make(
            py,
            Acquire {
                home: self.home,
                tree: Arc::clone(&self.tree),
                cost,
                permit: self.tree.acquire(ask),
            },
        )
    }

    /// A lease, or `None` if it cannot be had now.
    fn try_acquire(&self, py: Python<'_>, cost: &Bound<'_, PyAny>) -> PyResult<Option<Lease>> {
        self.check(py)?;
        let cost = amount("cost", cost)?;
        let permit = self
            .tree
            .try_acquire(core::Ask::slots(self.node, cost))
            .map_err(|error| above(cost, &error))?;
        Ok(permit.map(|permit| Lease {
            home: self.home,
            cost,
            permit,
        }))
    }

    #[getter]
    fn limit(&self) -> u64 {
        let limits = self.tree.limits(self.node);
        limits.first().map_or(0, |&(_, limit)| match limit {
            core::Limit::Slots(slots) => units(slots),
            _ => 0,
        })
    }

    #[getter]
    fn held(&self) -> u64 {
        units(self.tree.held(self.node, core::Resource::SLOTS))
    }

    #[getter]
    fn waiting(&self) -> usize {
        self.tree.waiting(self.node)
    }

    #[getter]
    fn available(&self) -> u64 {
        let available = self.tree.available(self.node, core::Resource::SLOTS);
        available.map_or(0, units)
    }
}

impl Capacity {
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        check(self.home, &self.tree, py)
    }
}

fn check(home: Home, tree: &core::Tree, py: Python<'_>) -> PyResult<()> {
    home.check(py, "capacity")?;
    if tree.is_broken() {
        Err(errors::broken(py, "capacity"))
    } else {
        Ok(())
    }
}

fn units(amount: core::Amount) -> u64 {
    amount.as_micros() / core::Amount::ONE.as_micros()
}

/// A positive whole number of slots.
fn amount(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(errors::wrong_type(parameter, "a positive integer", value));
    }
    match value.extract::<u64>() {
        Ok(amount) if amount > 0 && amount < units(core::Amount::MAX) => Ok(amount),
        _ => Err(PyValueError::new_err(format!(
            "{parameter} must be a positive integer below 10**12, got {}",
            errors::describe(value)
        ))),
    }
}

fn above(cost: u64, error: &core::AcquireError) -> PyErr {
    PyValueError::new_err(match error {
        core::AcquireError::AboveCeiling { ceiling, .. } => format!(
            "cost {cost} can never be had: a capacity on its path has the limit {ceiling}; lower the cost or raise that limit"
        ),
        error => format!("cost {cost} can never be had: {error}"),
    })
}

/// A part of a capacity that somebody holds.
#[pyclass(frozen, weakref, module = "headrace", name = "Lease")]
#[derive(Debug)]
pub(crate) struct Lease {
    home: Home,
    cost: u64,
    permit: core::Permit,
}

#[pymethods]
impl Lease {
    /// Gives it back. Doing so again does nothing. Any thread may.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.home.check(py, "lease")?;
        self.permit.release();
        Ok(())
    }

    /// How much it holds, while it holds.
    #[getter]
    fn cost(&self) -> u64 {
        self.cost
    }

    /// Whether it was given back.
    #[getter]
    fn released(&self) -> bool {
        self.permit.is_released()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(
        &self,
        py: Python<'_>,
        _exception: &Bound<'_, pyo3::types::PyTuple>,
    ) -> PyResult<()> {
        self.release(py)
    }

    fn __repr__(&self) -> String {
        let state = if self.permit.is_released() {
            "released"
        } else {
            "held"
        };
        format!("<Lease of {}, {state}>", self.cost)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.permit.is_released() {
            return;
        }
        self.permit.release();
        // A warning runs Python code, which must not see an exception that is on its way through
        // whoever dropped us.
        Python::attach(|py| {
            let pending = PyErr::take(py);
            let category = py.get_type::<PyResourceWarning>();
            if let Err(error) = PyErr::warn(
                py,
                &category,
                c"a lease was collected before it was released; use `with lease:`",
                1,
            ) {
                error.write_unraisable(py, None);
            }
            if let Some(pending) = pending {
                pending.restore(py);
            }
        });
    }
}

/// One wait for capacity.
#[derive(Debug)]
struct Acquire {
    home: Home,
    tree: Arc<core::Tree>,
    cost: u64,
    permit: core::Acquire,
}

static CLASS: Class = Class::new();

impl Operation for Acquire {
    const NAME: &'static CStr = c"headrace._core.Acquire";

    fn class() -> &'static Class {
        &CLASS
    }

    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>> {
        if let Err(error) = check(self.home, &self.tree, py) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.permit).poll(context).map(|permit| {
            let permit = permit.map_err(|error| above(self.cost, &error))?;
            Ok(Bound::new(
                py,
                Lease {
                    home: self.home,
                    cost: self.cost,
                    permit,
                },
            )?
            .into_any())
        })
    }

    fn traverse(&self, _see: Seen<'_>) -> Result<(), Stopped> {
        Ok(())
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Capacity>()?;
    module.add_class::<Lease>()?;
    Native::<Ready<Acquire>>::register(module.py())
}
