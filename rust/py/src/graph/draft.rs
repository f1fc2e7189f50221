//! A batch of nodes to add, and the reasons why it is refused.
//! `PyGraphCore` fills the batch, and `state.rs` checks and adds it.

use pyo3::IntoPyObjectExt;
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

/// The reason why nodes or dependencies are not added.
#[derive(Debug)]
pub(super) enum Refusal {
    Closed,
    /// The draft with this index has the key of a node.
    Key(usize),
    /// The draft with this index has the task of the node with this key.
    Task(usize, Py<PyAny>),
    /// The draft with the first index depends on a node that was forgotten, by the second index.
    Dependency(usize, usize),
    /// The node was forgotten, or is in this phase.
    State(Option<Phase>),
    /// The keys from one of the dependencies to the node, each of which depends on the next.
    Cycle(Vec<Py<PyAny>>),
}

/// A [`Refusal`] for Python: its name, the index of the draft, and the detail.
pub(super) type RefusalTuple = (&'static str, usize, Py<PyAny>);

impl Refusal {
    pub(super) fn into_tuple(self, py: Python<'_>) -> PyResult<RefusalTuple> {
        Ok(match self {
            Self::Closed => ("closed", 0, py.None()),
            Self::Key(index) => ("key", index, py.None()),
            Self::Task(index, key) => ("task", index, key),
            Self::Dependency(index, dependency) => {
                ("dependency", index, dependency.into_py_any(py)?)
            }
            Self::State(phase) => ("state", 0, phase.map(Phase::index).into_py_any(py)?),
            Self::Cycle(keys) => ("cycle", 0, keys.into_py_any(py)?),
        })
    }
}
