//! A batch of nodes to add, and the results of adding nodes and dependencies.

use pyo3::prelude::*;

use super::node::{Number, Phase};

/// A node to add.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) key: Py<PyAny>,
    pub(super) hash: isize,
    pub(super) item: Py<PyAny>,
    pub(super) is_task: bool,
    pub(super) depends_on: Vec<Py<PyAny>>,
    pub(super) dependencies: Vec<Dependency>,
    /// All nodes with a lower number were compared with its key, and differ.
    pub(super) compared: Number,
}

/// A dependency of a draft.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dependency {
    /// A node of the graph.
    Node(Number),
    /// A draft of the same batch, by its index.
    Draft(usize),
}

/// The reason why a batch is not added.
#[derive(Debug)]
pub(super) enum Refusal {
    Closed,
    /// The draft with this index has the key of a node.
    Key(usize),
    /// The draft with this index has the task of the node with this key.
    Task(usize, Py<PyAny>),
    /// The draft with the first index depends on a node that was forgotten, by the second index.
    Dependency(usize, usize),
}

/// The result of `depend`.
#[derive(Debug)]
pub(super) enum DependResult {
    Done,
    /// Nothing was done: the node was forgotten, or is in this phase.
    WrongState(Option<Phase>),
    /// The dependency with this index was forgotten.
    Forgotten(usize),
    /// The keys from one of the dependencies to the node, each of which depends on the next.
    Cycle(Vec<Py<PyAny>>),
}
