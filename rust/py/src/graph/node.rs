//! One node of a graph, and its phases. `state.rs` holds the nodes; `PyGraphCore` reports them to Python.

use pyo3::prelude::*;

use crate::object::gc::traverse;

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

    /// Return whether a node never leaves this phase.
    pub(super) fn is_settled(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Aborted)
    }

    /// Return its index in `headrace.DependencyState`.
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

/// The arguments of `headrace.DependencyNode`, with the index of the state. Converted to Python objects after the borrow, since
/// that may run the garbage collector.
pub(super) type Facts = (
    Py<PyAny>,
    Py<PyAny>,
    Vec<Py<PyAny>>,
    usize,
    Option<Py<PyAny>>,
    Option<Py<PyAny>>,
    Option<Py<PyAny>>,
);

impl Node {
    pub(super) fn facts(&self, py: Python<'_>) -> Facts {
        let clone = |object: &Option<Py<PyAny>>| object.as_ref().map(|object| object.clone_ref(py));
        let keys = self.depends_on.iter().map(|key| key.clone_ref(py));
        (
            self.key.clone_ref(py),
            self.item.clone_ref(py),
            keys.collect(),
            self.phase.index(),
            clone(&self.value),
            clone(&self.error),
            clone(&self.caused_by),
        )
    }
}

traverse!(Node {
    key,
    item,
    depends_on,
    issued,
    value,
    error,
    caused_by
});
