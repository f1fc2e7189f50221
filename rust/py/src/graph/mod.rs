//! The state of a `DependencyGraph`.
//!
//! # Problem
//!
//! Any thread may use a graph, and so may code that Python runs in the middle of a call:
//!
//! - `__hash__` and `__eq__` of a key, wherever a key is looked up; `__repr__`, wherever a message names it;
//! - `__del__` of anything that is dropped, and of any garbage that the collector finds, which may be at any allocation;
//! - a signal handler, between any two bytecodes of the main thread.
//!
//! All of these may call the graph again, raise, switch threads, or wait for another thread. A lock that is held over
//! bytecode is therefore wrong, whatever its kind: with a plain lock such a call waits for its own thread, and with a
//! reentrant one it finds the state half changed, or holds the lock while it waits for another thread that wants it.
//!
//! # Approach
//!
//! **There is no lock. Each step is one borrow of the state, in which no Python code runs.** The GIL is held throughout a
//! step, and is only released between bytecodes, so that nothing else can run meanwhile: no other thread, signal handler,
//! collector or finaliser. (Builds without a GIL are refused in `gil.rs`.) A call is made of four parts:
//!
//! 1. User code that the step needs is run first: keys are hashed and compared, and Python makes nodes into numbers.
//! 2. One step checks what it was told against the current state, changes it wholly or not at all, and
//!    copies out what the caller gets.
//! 3. What the step let go of is dropped, which may run finalisers.
//! 4. Events that the step recorded are delivered to the listeners, if no other call is delivering.
//!
//! Parts 2 to 4 are one call from Python, so that an exception of a signal handler (`KeyboardInterrupt`) strikes before it
//! or in a callback, and leaves no change without its events.
//!
//! # Invariants
//!
//! 1. Inside a borrow no Python object is made, compared, hashed or dropped; references are moved and counted up alone.
//!    What is let go of goes to `State::garbage`.
//! 2. Numbers are never used twice, so that one that was found before the step means the same node, or a forgotten one.
//! 3. No two nodes of the graph have equal keys.
//! 4. `counts`, `ready`, `running` and `tasks` agree with the states of the nodes between any two steps.
//! 5. An event is recorded in the step that caused it. While events are undelivered, a caller is delivering, or is about to.
//!
//! # Keys
//!
//! A dict cannot hold the keys, since it compares them while it looks for one. Here nodes whose keys have one hash are
//! linked, newest first. [`GraphCore::find`] copies these keys out in one step, and compares them afterwards. The answer
//! was true at that step, which lies within the call; a node that is forgotten meanwhile is missed in the next step.
//!
//! Adding has to know in the step itself that no node has the key (invariant 3):
//!
//! 1. Thread A hashes the key `k`, finds no node with that hash, and is about to add one.
//! 2. Thread B, or the `__hash__` of another key of A's batch, adds a node with a key equal to `k`.
//! 3. A adds its node. Now two nodes have that key.
//!
//! So step 3 looks for nodes with the same hash that were added since the last look, which their numbers tell. If there
//! are any, it adds nothing; they are compared, and the step is tried again. No key is compared with the same node twice.
//! A round is repeated only if a node with the same hash was added meanwhile, so that some call makes progress.
//!
//! # Delivery
//!
//! A callback may do anything with the graph, which causes more events. They are delivered by the call that is delivering
//! already, since calls inside one another would nest as deeply as the graph is. That call stops delivering in the same step in which it
//! finds no event: no event is recorded between the two and left behind.
//!
//! # Cost
//!
//! O(log nodes) to find a node by its number, and for each place in an order. With that: O(1) for a node, and O(1) for
//! an edge, each of which is added once and walked once. Nothing recurses.

mod news;
mod node;
mod state;

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use news::Kind;
use node::{Number, Phase};
use state::{Dependence, Draft, Need, Refusal, State};

/// The nodes, edges and listeners of a `DependencyGraph`, which says what its methods mean.
///
/// Nodes and listeners are numbers here, and states are indices of `DependencyState`.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug, Default)]
pub(crate) struct GraphCore(GilCell<State>);

/// A node that is to be added: key, item, whether the item is a `Task`, keys of dependencies, and what these are: `n` from
/// 0 is the node with the number `n`, and `~n` entry `n` of the batch.
type Entry<'py> = (Bound<'py, PyAny>, Py<PyAny>, bool, Vec<Py<PyAny>>, Vec<i64>);

#[pymethods]
impl GraphCore {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The number of the node with this key.
    fn find(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<Number>> {
        let hash = key.hash()?;
        let candidates: Vec<_> = {
            let state = self.0.borrow(py);
            let same = state.same_hash(hash, 0);
            same.map(|(number, node)| (number, node.key.clone_ref(py)))
                .collect()
        };
        for (number, candidate) in candidates {
            if is_same(candidate.bind(py), key)? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Adds nodes, all or none. Gives None, or why it does not: `"closed"`, `"key"`, `"task"` or `"need"`, the index of the
    /// entry, and the key of the node that has the task, or the index of the dependency that was forgotten.
    fn insert<'py>(
        &self,
        py: Python<'py>,
        entries: Vec<Entry<'py>>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let mut drafts = Vec::with_capacity(entries.len());
        for (key, item, is_task, depends_on, needs) in entries {
            drafts.push(Draft {
                hash: key.hash()?,
                key: key.unbind(),
                item,
                is_task,
                depends_on,
                needs: needs.into_iter().map(need).collect(),
                compared: 0,
            });
        }
        let refusal = match self.insert_checked(py, drafts)? {
            None => return Ok(None),
            Some(Refusal::Closed) => ("closed", 0, py.None()),
            Some(Refusal::Key(index)) => ("key", index, py.None()),
            Some(Refusal::Task(index, key)) => ("task", index, key),
            Some(Refusal::Need(index, need)) => {
                let need = need.into_pyobject(py)?.into_any().unbind();
                ("need", index, need)
            }
        };
        refusal.into_pyobject(py).map(Some)
    }

    /// Adds dependencies to a node, all or none. Gives None, or why it does not: `"state"` and the state of the node, or
    /// None if it was forgotten; `"need"` and the index of the dependency that was forgotten; or `"cycle"` and the keys
    /// from a dependency to the node.
    #[expect(clippy::needless_pass_by_value, reason = "it comes from Python")]
    fn depend<'py>(
        &self,
        py: Python<'py>,
        node: Number,
        needs: Vec<Number>,
    ) -> PyResult<Option<(&'static str, Bound<'py, PyAny>)>> {
        let (why, what) = match self.change(py, |state| state.depend(py, node, &needs))? {
            Dependence::Done => return Ok(None),
            Dependence::Not(phase) => ("state", phase.map(Phase::index).into_pyobject(py)?),
            Dependence::Forgotten(need) => ("need", need.into_pyobject(py)?.into_any()),
            Dependence::Cycle(keys) => ("cycle", keys.into_pyobject(py)?),
        };
        Ok(Some((why, what)))
    }

    /// The item of a node and its state; None if it was forgotten.
    fn item(&self, py: Python<'_>, node: Number) -> Option<(Py<PyAny>, usize)> {
        let state = self.0.borrow(py);
        let node = state.get(node)?;
        Some((node.item.clone_ref(py), node.phase.index()))
    }

    /// Takes a node, for which `given` is given out; false if it is not ready.
    fn take(&self, py: Python<'_>, node: Number, given: Py<PyAny>) -> PyResult<bool> {
        self.change(py, |state| state.take(node, given))
    }

    /// Completes a node that is ready or running. Gives the state that it was in; None if it was forgotten.
    fn complete(&self, py: Python<'_>, node: Number, value: Py<PyAny>) -> PyResult<Option<usize>> {
        let phase = self.change(py, |state| state.complete(py, node, value))?;
        Ok(phase.map(Phase::index))
    }

    /// Fails a node that is ready or running. Gives the state that it was in; None if it was forgotten.
    fn fail(&self, py: Python<'_>, node: Number, error: Py<PyAny>) -> PyResult<Option<usize>> {
        let phase = self.change(py, |state| state.fail(py, node, error))?;
        Ok(phase.map(Phase::index))
    }

    /// Completes the node that was given out as this object; false if none is running with it.
    fn completed(
        &self,
        py: Python<'_>,
        given: &Bound<'_, PyAny>,
        value: Py<PyAny>,
    ) -> PyResult<bool> {
        self.change(py, |state| match state.running_with(given) {
            Some(node) => state.complete(py, node, value).is_some(),
            None => state.let_go(value),
        })
    }

    /// Fails the node that was given out as this object; false if none is running with it.
    fn failed(&self, py: Python<'_>, given: &Bound<'_, PyAny>, error: Py<PyAny>) -> PyResult<bool> {
        self.change(py, |state| match state.running_with(given) {
            Some(node) => state.fail(py, node, error).is_some(),
            None => state.let_go(error),
        })
    }

    /// Aborts a node and what depends on it. Gives the keys of those that were aborted; None if it was forgotten.
    fn abort(
        &self,
        py: Python<'_>,
        node: Number,
        error: Option<Py<PyAny>>,
    ) -> PyResult<Option<Vec<Py<PyAny>>>> {
        self.change(py, |state| state.abort(py, node, error))
    }

    /// Drops all settled nodes, and says how many.
    fn forget(&self, py: Python<'_>) -> PyResult<usize> {
        let forgotten = self.change(py, State::forget)?;
        Ok(forgotten.len())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.change(py, State::close)
    }

    /// Closes the graph if all its nodes are settled, unless it is kept open. Whether it is closed, and all are settled.
    fn close_if_over(&self, py: Python<'_>, keep_open: bool) -> bool {
        let mut state = self.0.borrow(py);
        let is_finished = state.is_finished();
        state.is_closed |= is_finished && !keep_open;
        state.is_closed && is_finished
    }

    /// Adds a callback for nodes that become ready, and for those that are. Gives its number.
    fn on_ready(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<Number> {
        self.change(py, |state| state.listen(py, Kind::Ready, callback))
    }

    /// Adds a callback for the moments when all nodes are settled. Gives its number.
    fn on_finished(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<Number> {
        self.change(py, |state| state.listen(py, Kind::Finished, callback))
    }

    /// Removes a callback, if it is there.
    fn stop(&self, py: Python<'_>, listener: Number) {
        let callback = self.0.borrow(py).news.stop(listener);
        drop(callback);
    }

    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        self.0.borrow(py).is_closed
    }

    #[getter]
    fn finished(&self, py: Python<'_>) -> bool {
        self.0.borrow(py).is_finished()
    }

    /// How many nodes are in each state.
    fn counts(&self, py: Python<'_>) -> [usize; Phase::COUNT] {
        self.0.borrow(py).counts()
    }

    /// All nodes, or those in one state, oldest first, each as the arguments of `DependencyNode`.
    fn nodes<'py>(
        &self,
        py: Python<'py>,
        state: Option<usize>,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let snapshots: Vec<_> = {
            let graph = self.0.borrow(py);
            let wanted = graph
                .nodes()
                .filter(|node| state.is_none_or(|state| state == node.phase.index()));
            wanted.map(|node| node.snapshot(py)).collect()
        };
        snapshots
            .into_iter()
            .map(|snapshot| snapshot.into_tuple(py))
            .collect()
    }

    /// One node, as the arguments of `DependencyNode`; None if it was forgotten.
    fn node<'py>(&self, py: Python<'py>, node: Number) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let snapshot = self.0.borrow(py).get(node).map(|node| node.snapshot(py));
        snapshot.map(|snapshot| snapshot.into_tuple(py)).transpose()
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.0.borrow(py).len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| match self.0.peek_for_gc() {
            Some(state) => state.traverse(visit),
            None => Ok(()),
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let state = std::mem::take(&mut *self.0.borrow(py));
        drop(state);
    }
}

impl GraphCore {
    /// Makes one step, and what follows from it: see the top of this file.
    fn change<T>(&self, py: Python<'_>, step: impl FnOnce(&mut State) -> T) -> PyResult<T> {
        let (result, garbage) = {
            let mut state = self.0.borrow(py);
            (step(&mut state), std::mem::take(&mut state.garbage))
        };
        drop(garbage);
        self.deliver(py)?;
        Ok(result)
    }

    /// Adds a batch when each of its keys was compared with all nodes of its hash.
    fn insert_checked(&self, py: Python<'_>, mut drafts: Vec<Draft>) -> PyResult<Option<Refusal>> {
        loop {
            let rivals = {
                let mut state = self.0.borrow(py);
                if state.is_closed {
                    return Ok(Some(Refusal::Closed));
                }
                let rivals = rivals(py, &state, &mut drafts);
                if rivals.is_empty() {
                    if let Some(refusal) = state.refuse(py, &drafts) {
                        return Ok(Some(refusal));
                    }
                    state.insert(py, std::mem::take(&mut drafts));
                }
                rivals
            };
            if rivals.is_empty() {
                return self.change(py, |_| None);
            }
            for (index, rival) in rivals {
                if is_same(rival.bind(py), drafts[index].key.bind(py))? {
                    return Ok(Some(Refusal::Key(index)));
                }
            }
        }
    }

    /// Delivers all events, unless a call does so already, which then delivers these too. Raises what callbacks raised.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        if !self.0.borrow(py).news.begin() {
            return Ok(());
        }
        let mut errors = Vec::new();
        loop {
            let next = self.0.borrow(py).news.next();
            let Some(mut event) = next else {
                break;
            };
            loop {
                let listener = self.0.borrow(py).news.listener(py, &event);
                let Some((number, callback)) = listener else {
                    break;
                };
                event.from = number + 1;
                let called = match &event.key {
                    Some(key) => callback.call1(py, (key,)),
                    None => callback.call0(py),
                };
                if let Err(error) = called {
                    errors.push(error.into_value(py));
                }
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        py.import(intern!(py, "headrace.graph.graph"))?
            .call_method1(intern!(py, "raise_callback_errors"), (errors,))?;
        Ok(())
    }
}

/// The nodes that a draft may have the key of, and was not compared with, each with the index of the draft.
fn rivals(py: Python<'_>, state: &State, drafts: &mut [Draft]) -> Vec<(usize, Py<PyAny>)> {
    let mut rivals = Vec::new();
    for (index, draft) in drafts.iter_mut().enumerate() {
        let same = state.same_hash(draft.hash, draft.compared);
        rivals.extend(same.map(|(_, node)| (index, node.key.clone_ref(py))));
        draft.compared = state.next_number();
    }
    rivals
}

/// Whether a key is that of a node, as a dict would find it.
fn is_same(of_node: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(of_node.is(key) || of_node.eq(key)?)
}

fn need(number: i64) -> Need {
    match Number::try_from(number) {
        Ok(number) => Need::Old(number),
        Err(_) => Need::New(usize::try_from(!number).unwrap_or(usize::MAX)),
    }
}
