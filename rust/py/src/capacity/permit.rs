//! Permits for the task pool: capacity that is held without a `Lease` object.
//! `pool/engine.rs` and `pool/request.rs` use them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headrace_core::capacity::adaptive::Outcome;
use headrace_core::capacity::{self as core, PermitId};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt};

use super::acquire::{AcquireAwaitable, one_slot};
use super::arguments::Argument;
use super::convert;
use super::lease::PyLease;
use super::node::PyCapacity;
use super::outcome::report_stated;
use super::prefetch::{PyPermitPrefetch, RunUsage};
use super::tree::PyTreeRef;
use crate::object::gc::traverse;

/// Requests the costs of a pool's tasks from a capacity, without an owner.
#[derive(Debug)]
pub(crate) struct CapacityClient {
    capacity: Py<PyCapacity>,
    /// Permits of one slot.
    prefetch: Py<PyPermitPrefetch>,
    /// The capacity's `acquire_nowait`.
    method: Py<PyAny>,
    /// Whether no subclass overrides `acquire_nowait` or `acquire`.
    is_native: bool,
    /// Whether outcomes are to be reported: a limit of the path is adaptive, which never changes, or a node of the tree has a breaker.
    reports: Arc<AtomicBool>,
}

impl CapacityClient {
    pub(crate) fn new(
        capacity: &Bound<'_, PyAny>,
        prefetch: Py<PyPermitPrefetch>,
    ) -> PyResult<Self> {
        let py = capacity.py();
        let capacity = capacity.cast::<PyCapacity>()?;
        let name = intern!(py, "acquire_nowait");
        let (class, native) = (capacity.get_type(), py.get_type::<PyCapacity>());
        let is_native = |name| PyResult::Ok(class.getattr(name)?.is(native.getattr(name)?));
        let (tree_ref, node) = capacity.get().tree_and_node()?;
        let handle = &tree_ref.get().0;
        let is_adaptive = handle.peek().is_adaptive(node);
        Ok(Self {
            reports: if is_adaptive {
                Arc::new(AtomicBool::new(true))
            } else {
                Arc::clone(handle.has_breakers())
            },
            capacity: capacity.clone().unbind(),
            prefetch,
            method: capacity.getattr(name)?.unbind(),
            is_native: is_native(name)? && is_native(intern!(py, "acquire"))?,
        })
    }

    /// Return a permit for a cost (one slot by default) if it is available now. A cost with named resources is granted as a
    /// lease.
    #[inline]
    fn try_permit(
        &self,
        py: Python<'_>,
        cost: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<TaskPermit>> {
        let capacity = self.capacity.get();
        let request = match cost {
            _ if !self.is_native => return self.acquire_nowait(py, cost),
            None => one_slot(capacity.tree_and_node()?.1),
            Some(cost) if is_one(cost) => one_slot(capacity.tree_and_node()?.1),
            Some(cost) => {
                capacity.request(py, Argument::Value(cost.as_borrowed()), Argument::Default)?
            }
        };
        let Some(id) = capacity.try_take(py, &request)? else {
            return Ok(None);
        };
        Ok(Some(if cost.is_none_or(is_number) {
            TaskPermit::Native(TreePermit::new(py, capacity.tree_and_node()?.0, id))
        } else {
            let lease = PyLease::make(self.capacity.bind(py), id)?;
            TaskPermit::Lease(lease.into_any().unbind())
        }))
    }

    /// Return the awaitable of a lease; `None` if a subclass overrides the methods.
    fn acquire<'py>(
        &self,
        py: Python<'py>,
        cost: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.is_native {
            return Ok(None);
        }
        let capacity = self.capacity.bind(py);
        let request = match cost {
            Some(cost) if !is_one(cost) => {
                let cost = Argument::Value(cost.as_borrowed());
                Some(Box::new(capacity.get().checked_request(
                    py,
                    cost,
                    Argument::Default,
                )?))
            }
            _ => {
                capacity.get().check_one_slot(py)?;
                None
            }
        };
        AcquireAwaitable::make(capacity.clone(), request, false, None).map(Some)
    }

    #[cold]
    fn acquire_nowait(
        &self,
        py: Python<'_>,
        cost: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<TaskPermit>> {
        let method = self.method.bind(py);
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "owner"), py.None())?;
        let lease = match cost {
            None => method.call((), Some(&keywords)),
            Some(cost) => method.call((cost,), Some(&keywords)),
        }?;
        Ok((!lease.is_none()).then(|| TaskPermit::Lease(lease.unbind())))
    }

    /// Return the permit for the next task, or the awaitable of its lease.
    ///
    /// `usage` returns the run's usage of its node.
    #[inline]
    pub(crate) fn next<'py>(
        &self,
        py: Python<'py>,
        cost: Option<&Bound<'py, PyAny>>,
        usage: impl FnOnce() -> RunUsage,
    ) -> PyResult<Next<'py>> {
        let prefetch = self.prefetch.get();
        if self.is_native && cost.is_none_or(is_one) {
            return Ok(match prefetch.take_one(py)? {
                Some(permit) => Next::Granted(TaskPermit::Native(permit)),
                None => Next::Pending(prefetch.wait_for_one(py, usage())?),
            });
        }
        prefetch.clear(py);
        self.request(py, cost)
    }

    /// Return whether no subclass has replaced `acquire` or `acquire_nowait` of the core.
    pub(crate) fn is_native(&self) -> bool {
        self.is_native
    }

    /// Return whether the outcomes of tasks are to be reported.
    #[inline]
    pub(crate) fn reports(&self) -> bool {
        self.reports.load(Ordering::Relaxed)
    }

    /// Request a permit without prefetching others.
    pub(crate) fn request<'py>(
        &self,
        py: Python<'py>,
        cost: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Next<'py>> {
        if let Some(grant) = self.try_permit(py, cost)? {
            return Ok(Next::Granted(grant));
        }
        Ok(self
            .acquire(py, cost)?
            .map_or(Next::Unsupported, Next::Pending))
    }

    /// Request a permit in front of the wait queue, for a task that keeps its place there. The lowest `order` is first.
    #[cold]
    pub(crate) fn request_in_front<'py>(
        &self,
        py: Python<'py>,
        cost: Option<&Bound<'py, PyAny>>,
        order: u64,
    ) -> PyResult<Next<'py>> {
        // Prefetched requests are those of tasks that were not called before.
        self.clear(py);
        if !self.is_native {
            return self.request(py, cost);
        }
        let capacity = self.capacity.bind(py);
        let cost = cost.map_or(Argument::Default, |cost| {
            Argument::Value(cost.as_borrowed())
        });
        let request = capacity
            .get()
            .checked_request(py, cost, Argument::Default)?
            .in_front(order);
        AcquireAwaitable::make(capacity.clone(), Some(Box::new(request)), false, None)
            .map(Next::Pending)
    }

    /// Cancel the prefetched requests.
    #[inline]
    pub(crate) fn clear(&self, py: Python<'_>) {
        self.prefetch.get().clear(py);
    }
}

traverse!(CapacityClient {
    capacity,
    prefetch,
    method
});

/// The result of requesting capacity for a task.
#[derive(Debug)]
pub(crate) enum Next<'py> {
    Granted(TaskPermit),
    /// Awaiting this returns the lease.
    Pending(Bound<'py, PyAny>),
    /// A subclass overrides the methods: Python must request the capacity.
    Unsupported,
}

/// Return whether a cost is a bare number of slots.
#[inline]
pub(crate) fn is_number(cost: &Bound<'_, PyAny>) -> bool {
    cost.is_instance_of::<PyInt>() || cost.is_instance_of::<PyFloat>()
}

/// Return whether a cost is the number 1, the most common one.
#[inline]
fn is_one(cost: &Bound<'_, PyAny>) -> bool {
    cost.is_exact_instance_of::<PyInt>() && cost.extract::<u8>().is_ok_and(|cost| cost == 1)
}

/// The capacity that a task holds until it is released.
#[derive(Debug)]
pub(crate) enum TaskPermit {
    Native(TreePermit),
    /// A `Lease`, which user code may also use.
    Lease(Py<PyAny>),
}

impl TaskPermit {
    /// Release the capacity.
    #[inline]
    pub(crate) fn release(&mut self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Native(permit) => permit.release(py),
            Self::Lease(lease) => match lease.bind(py).cast_exact::<PyLease>() {
                Ok(lease) => lease.get().release(py),
                Err(_) => lease.call_method0(py, intern!(py, "release")).map(drop),
            },
        }
    }

    /// Report the outcome of the task to the adaptive limits and the breakers of the path.
    pub(crate) fn report(&self, py: Python<'_>, outcome: Outcome) -> PyResult<()> {
        match self {
            Self::Native(permit) => permit.report(py, outcome),
            // A subclass may grant leases of its own.
            Self::Lease(lease) => match lease.bind(py).cast::<PyLease>() {
                Ok(lease) => lease.get().report_outcome(py, outcome),
                Err(_) => Ok(()),
            },
        }
    }

    /// Return the held amounts by resource, as settled.
    pub(crate) fn cost<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        match self {
            Self::Native(permit) => permit.cost(py),
            Self::Lease(lease) => {
                let cost = lease.bind(py).getattr(intern!(py, "cost"))?;
                Ok(cost.cast_into()?)
            }
        }
    }

    /// Report the limits that an error of the task carries to the auto rates of the path.
    pub(crate) fn report_stated(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        match self {
            Self::Native(permit) => match &permit.tree_ref {
                Some(tree_ref) => {
                    report_stated(py, &tree_ref.get().0, permit.id, None, Some(error))
                }
                None => Ok(()),
            },
            Self::Lease(lease) => match lease.bind(py).cast::<PyLease>() {
                Ok(lease) => lease.get().report_stated(py, error),
                Err(_) => Ok(()),
            },
        }
    }

    /// Return the number of its permit in the tree; 0 for a lease of a class that is not known.
    pub(crate) fn number(&self, py: Python<'_>) -> u64 {
        match self {
            Self::Native(permit) => permit.id.number(),
            Self::Lease(lease) => {
                (lease.bind(py).cast::<PyLease>()).map_or(0, |lease| lease.get().id().number())
            }
        }
    }

    /// Return the id of the permit in its tree; `None` for a lease of another class.
    #[inline]
    pub(crate) fn id(&self, py: Python<'_>) -> Option<PermitId> {
        match self {
            Self::Native(permit) => Some(permit.id),
            Self::Lease(lease) => {
                (lease.bind(py).cast::<PyLease>().ok()).map(|lease| lease.get().id())
            }
        }
    }

    /// Return the lease, if it is one.
    pub(crate) fn lease(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Native(_) => None,
            Self::Lease(lease) => Some(lease),
        }
    }
}

/// A permit of the core that is released when it is dropped.
#[derive(Debug)]
pub(crate) struct TreePermit {
    /// `None` after the release.
    tree_ref: Option<Py<PyTreeRef>>,
    id: PermitId,
}

impl TreePermit {
    #[inline]
    pub(super) fn new(py: Python<'_>, tree_ref: &Py<PyTreeRef>, id: PermitId) -> Self {
        Self {
            tree_ref: Some(tree_ref.clone_ref(py)),
            id,
        }
    }

    fn cost<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Some(tree_ref) = &self.tree_ref else {
            return Ok(PyDict::new(py));
        };
        let tree = tree_ref.get().0.peek();
        let cost = tree.cost(self.id);
        convert::by_name(py, tree, cost.iter().flat_map(core::Cost::parts).copied())
    }

    fn report(&self, py: Python<'_>, outcome: Outcome) -> PyResult<()> {
        if let Some(tree_ref) = &self.tree_ref {
            tree_ref.get().0.enter(py)?.report(self.id, outcome);
        }
        Ok(())
    }

    #[inline]
    fn release(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(tree_ref) = self.tree_ref.take() else {
            return Ok(());
        };
        let handle = &tree_ref.get().0;
        let released = handle.give_back(py, "capacity", |tree| tree.release(self.id));
        tree_ref.drop_ref(py);
        released
    }
}

impl Drop for TreePermit {
    fn drop(&mut self) {
        // A closed event loop drops its tasks with their permits. A forked child releases nothing.
        if let Some(tree_ref) = self.tree_ref.take() {
            let handle = &tree_ref.get().0;
            handle.in_destructor(|tree| tree.release(self.id));
        }
    }
}
