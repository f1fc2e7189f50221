//! How the core asks a capacity for itself: what is granted is no object of Python's.

use std::sync::Arc;

use headrace_core::capacity::PermitId;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt};

use super::acquire::{Acquiring, one_slot};
use super::arguments::Given;
use super::node::Capacity;
use super::prefetch::{Asks, Own};
use super::tree::Shared;
use crate::object::gc::traverse;

/// A capacity, as a pool asks it for what its tasks cost, on nobody's account.
#[derive(Debug)]
pub(crate) struct Granter {
    capacity: Py<Capacity>,
    /// For one slot.
    asks: Py<Asks>,
    /// Its `acquire_nowait`.
    method: Py<PyAny>,
    /// Whether that and `acquire` are the core's own, and no subclass has put one in its place.
    is_native: bool,
}

impl Granter {
    pub(crate) fn new(capacity: &Bound<'_, PyAny>, asks: Py<Asks>) -> PyResult<Self> {
        let py = capacity.py();
        let capacity = capacity.cast::<Capacity>()?;
        let name = intern!(py, "acquire_nowait");
        let (class, native) = (capacity.get_type(), py.get_type::<Capacity>());
        let is_native = |name| PyResult::Ok(class.getattr(name)?.is(native.getattr(name)?));
        Ok(Self {
            capacity: capacity.clone().unbind(),
            asks,
            method: capacity.getattr(name)?.unbind(),
            is_native: is_native(name)? && is_native(intern!(py, "acquire"))?,
        })
    }

    /// So much (one slot, if nothing is said), if it can be had now. What has named parts comes as a lease.
    #[inline]
    fn try_grant(
        &self,
        py: Python<'_>,
        cost: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Grant>> {
        let capacity = self.capacity.get();
        let ask = match cost {
            _ if !self.is_native => return self.acquire_nowait(py, cost),
            None => one_slot(capacity.place()?.1),
            Some(cost) if is_one(cost) => one_slot(capacity.place()?.1),
            Some(cost) if is_number(cost) => {
                capacity.ask(py, Given::Value(cost.as_borrowed()), Given::No)?
            }
            Some(_) => return self.acquire_nowait(py, cost),
        };
        let id = capacity.take(py, &ask)?;
        let shared = capacity.shared()?;
        Ok(id.map(|id| Grant::Permit(Permit::new(shared, id))))
    }

    /// What gives a lease of as much, when awaited; nothing if that is not the core's to say.
    fn acquire<'py>(
        &self,
        py: Python<'py>,
        cost: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.is_native {
            return Ok(None);
        }
        let capacity = self.capacity.bind(py);
        let ask = match cost {
            Some(cost) if !is_one(cost) => {
                let cost = Given::Value(cost.as_borrowed());
                Some(Box::new(capacity.get().checked(py, cost, Given::No)?))
            }
            _ => {
                capacity.get().check_one(py)?;
                None
            }
        };
        Acquiring::make(capacity.clone(), ask, false, None).map(Some)
    }

    #[cold]
    fn acquire_nowait(
        &self,
        py: Python<'_>,
        cost: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Grant>> {
        let method = self.method.bind(py);
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "owner"), py.None())?;
        let lease = match cost {
            None => method.call((), Some(&keywords)),
            Some(cost) => method.call((cost,), Some(&keywords)),
        }?;
        Ok((!lease.is_none()).then(|| Grant::Lease(lease.unbind())))
    }

    /// What a task gets that costs so much, or what it waits for. Nothing if that is not the core's to say.
    ///
    /// `least` is what the run has of its node at least, and `own` what it has.
    #[inline]
    pub(crate) fn next<'py>(
        &self,
        py: Python<'py>,
        cost: Option<&Bound<'py, PyAny>>,
        least: impl FnOnce() -> Own,
        own: impl FnOnce() -> PyResult<Own>,
    ) -> PyResult<Next<'py>> {
        let asks = self.asks.get();
        if self.is_native && cost.is_none_or(is_one) {
            return Ok(match asks.take_one(py)? {
                Some(permit) => Next::Had(Grant::Permit(permit)),
                None => Next::Waits(asks.wait_for_one(py, least(), own)?),
            });
        }
        asks.clear(py);
        self.request(py, cost)
    }

    /// Whether no subclass has put its own `acquire` or `acquire_nowait` in place of the core's.
    pub(crate) fn is_native(&self) -> bool {
        self.is_native
    }

    /// The same, without asking ahead.
    pub(crate) fn request<'py>(
        &self,
        py: Python<'py>,
        cost: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Next<'py>> {
        if let Some(grant) = self.try_grant(py, cost)? {
            return Ok(Next::Had(grant));
        }
        Ok(self.acquire(py, cost)?.map_or(Next::Left, Next::Waits))
    }

    /// Nothing is asked for ahead any more.
    #[inline]
    pub(crate) fn clear(&self, py: Python<'_>) {
        self.asks.get().clear(py);
    }
}

traverse!(Granter {
    capacity,
    asks,
    method
});

/// What became of asking for capacity.
#[derive(Debug)]
pub(crate) enum Next<'py> {
    Had(Grant),
    /// This gives it when awaited.
    Waits(Bound<'py, PyAny>),
    /// It is Python's to ask.
    Left,
}

/// Whether a cost is a bare number: so many slots.
#[inline]
pub(crate) fn is_number(cost: &Bound<'_, PyAny>) -> bool {
    cost.is_instance_of::<PyInt>() || cost.is_instance_of::<PyFloat>()
}

/// Whether a cost is the number 1, which is that of nearly all tasks.
#[inline]
fn is_one(cost: &Bound<'_, PyAny>) -> bool {
    cost.is_exact_instance_of::<PyInt>() && cost.extract::<u8>().is_ok_and(|cost| cost == 1)
}

/// What was granted, and is held until it is given back.
#[derive(Debug)]
pub(crate) enum Grant {
    Permit(Permit),
    /// A `Lease`, which somebody else may have a hand on.
    Lease(Py<PyAny>),
}

impl Grant {
    /// Gives it back.
    #[inline]
    pub(crate) fn release(&mut self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Permit(permit) => permit.release(py),
            Self::Lease(lease) => lease
                .bind(py)
                .call_method0(intern!(py, "release"))
                .map(drop),
        }
    }

    /// The lease, where it is one.
    pub(crate) fn lease(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Permit(_) => None,
            Self::Lease(lease) => Some(lease),
        }
    }
}

/// What a lease holds, without the lease.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` once it was given back.
    shared: Option<Arc<Shared>>,
    id: PermitId,
}

impl Permit {
    #[inline]
    pub(super) fn new(shared: &Arc<Shared>, id: PermitId) -> Self {
        Self {
            shared: Some(Arc::clone(shared)),
            id,
        }
    }

    #[inline]
    fn release(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(shared) = self.shared.take() else {
            return Ok(());
        };
        shared.give_back(py, "capacity", |tree| tree.release(self.id))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A loop that was closed under its tasks drops them. A child of a fork has no such tree.
        if let Some(shared) = self.shared.take() {
            shared.at_last(|tree| tree.release(self.id));
        }
    }
}
