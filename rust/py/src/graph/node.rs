//! One node of a graph, and its phases.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::object::gc::{Traverse, VisitError, Visitor};

/// The state of a node, in the order of `headrace.DependencyState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Ready,
    Running,
    Completed,
    Failed,
    Aborted,
}

impl Phase {
    pub(super) const COUNT: usize = 6;

    /// Whether a node never leaves this phase.
    pub(super) fn is_settled(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Aborted)
    }

    /// Its index in `headrace.DependencyState`.
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// A number that is assigned once: to a node, a listener, an event, or a position in an order.
pub(super) type Number = u64;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: Py<PyAny>,
    pub(super) hash: isize,
    /// The previous node whose key has the same hash.
    pub(super) older: Option<Number>,
    pub(super) item: Py<PyAny>,
    /// Whether the item is a `Task`, which only one unsettled node may have.
    pub(super) is_task: bool,
    /// The keys of its dependencies. A key that was passed to `depend` again is listed again.
    pub(super) depends_on: Vec<Py<PyAny>>,
    pub(super) phase: Phase,
    /// Its position among the ready nodes, or among the running nodes with the same issued object.
    pub(super) position: Number,
    /// The number of its dependencies that are not completed.
    pub(super) unmet: usize,
    /// The nodes that depend on it, oldest first. Emptied when it is settled, so that each edge is walked once.
    pub(super) dependants: Vec<Number>,
    /// The object that was issued for it, while it is running. Keeps the address of that object in use.
    pub(super) issued: Option<Py<PyAny>>,
    pub(super) value: Option<Py<PyAny>>,
    pub(super) error: Option<Py<PyAny>>,
    pub(super) caused_by: Option<Py<PyAny>>,
}

impl Node {
    pub(super) fn snapshot(&self, py: Python<'_>) -> Snapshot {
        let clone = |object: &Option<Py<PyAny>>| object.as_ref().map(|object| object.clone_ref(py));
        Snapshot {
            key: self.key.clone_ref(py),
            item: self.item.clone_ref(py),
            depends_on: self
                .depends_on
                .iter()
                .map(|key| key.clone_ref(py))
                .collect(),
            phase: self.phase,
            value: clone(&self.value),
            error: clone(&self.error),
            caused_by: clone(&self.caused_by),
        }
    }
}

impl Traverse for Node {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(&self.key)?;
        visit(&self.item)?;
        self.depends_on.iter().try_for_each(&mut *visit)?;
        [&self.issued, &self.value, &self.error, &self.caused_by]
            .into_iter()
            .flatten()
            .try_for_each(visit)
    }
}

/// A copy of a node's public fields. Converting it to Python objects may run the garbage collector, so that happens after the
/// borrow.
pub(super) struct Snapshot {
    key: Py<PyAny>,
    item: Py<PyAny>,
    depends_on: Vec<Py<PyAny>>,
    phase: Phase,
    value: Option<Py<PyAny>>,
    error: Option<Py<PyAny>>,
    caused_by: Option<Py<PyAny>>,
}

impl Snapshot {
    /// Returns the arguments of `headrace.DependencyNode`, with the index of the state.
    pub(super) fn into_tuple(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        (
            self.key,
            self.item,
            PyTuple::new(py, self.depends_on)?,
            self.phase.index(),
            self.value,
            self.error,
            self.caused_by,
        )
            .into_pyobject(py)
    }
}
