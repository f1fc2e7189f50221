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
//! All of these may call the graph again, raise, switch threads, or wait for another thread. So no kind of lock may be held
//! while bytecode runs. With a plain lock such a call waits for its own thread. With a reentrant lock it sees a half-changed
//! state, or holds the lock while it waits for another thread that needs it.
//!
//! # Approach
//!
//! **There is no lock. Each step is one borrow of the state, in which no Python code runs.** The GIL is held throughout a
//! step: it is only released between bytecodes. So no other thread, signal handler, collector or finaliser can run meanwhile.
//! (Builds without a GIL are refused at import.) A call has four parts:
//!
//! 1. User code that the step needs runs first: keys are hashed and compared, and Python converts nodes to numbers.
//! 2. One step checks its arguments against the current state, changes the state completely or not at all, and copies out the
//!    results.
//! 3. Objects that the step released are dropped, which may run finalisers.
//! 4. Events that the step recorded are dispatched to the listeners, unless another call is dispatching.
//!
//! Parts 2 to 4 are one call from Python. So an exception of a signal handler (`KeyboardInterrupt`) is raised before the call
//! or in a callback, and no change is left without its events.
//!
//! # Invariants
//!
//! 1. Inside a borrow no Python object is created, compared, hashed or dropped; references are only moved and counted up.
//!    Released objects go to `State::garbage`.
//! 2. Numbers are never reused. A number that was found before the step means the same node, or a forgotten one.
//! 3. No two nodes of the graph have equal keys.
//! 4. `counts`, `ready`, `running` and `tasks` agree with the states of the nodes between any two steps.
//! 5. An event is recorded in the step that caused it. While events are pending, a call dispatches them, or is about to.
//!
//! # Keys
//!
//! A dict cannot hold the keys, since it compares them during a look-up. Here the nodes whose keys have the same hash are
//! linked, newest first. [`PyGraphCore::find`] copies these keys out in one step, and compares them afterwards. The result
//! was true at that step, which lies within the call. The next step does not find a node that is forgotten meanwhile.
//!
//! To keep invariant 3, the step that adds a node must know that no other node has its key. The race to avoid:
//!
//! 1. Thread A hashes the key `k`, finds no node with that hash, and is about to add one.
//! 2. Thread B, or the `__hash__` of another key of A's batch, adds a node with a key equal to `k`.
//! 3. A adds its node. Now two nodes have that key.
//!
//! So step 3 looks for nodes with the same hash that were added since the last look-up, which their numbers show. If there
//! are any, it adds nothing: they are compared, and the step is repeated. No key is compared with the same node twice. A
//! step is repeated only if a node with the same hash was added meanwhile, so some call always makes progress.
//!
//! # Dispatch
//!
//! A callback may call the graph and cause more events. The call that is dispatching already dispatches these too: nested
//! calls would be as deep as the graph. It stops dispatching in the same step in which it finds no event, so no event is
//! recorded in between and left behind.
//!
//! # Cost
//!
//! O(log nodes) to find a node by its number, and for each position in an order. Apart from that, O(1) for a node and O(1)
//! for an edge: each is added once and walked once. Nothing recurses.
//!
//! | file | contents |
//! |---|---|
//! | [`state`] | nodes, edges and the steps that change them |
//! | [`node`] | one node and its phases |
//! | [`draft`] | a batch of nodes to add, and the results of adding |
//! | [`events`] | pending events and listeners |

mod draft;
mod events;
mod node;
mod state;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use draft::{Dependency, Draft, Refusal, RefusalTuple};
use events::EventKind;
use node::{Facts, Number, Phase};
use state::State;

/// The nodes, edges and listeners of a `DependencyGraph`, which documents the methods.
///
/// Nodes and listeners are numbers here, and states are indices of `DependencyState`.
#[pyclass(name = "GraphCore", frozen, module = "headrace._core")]
#[derive(Debug, Default)]
pub(crate) struct PyGraphCore(GilCell<State>);

/// A node to add: key, item, whether the item is a `Task`, the keys of its dependencies, and the dependencies. Of these, `n`
/// from 0 is the node with the number `n`, and `~n` is entry `n` of the batch.
type Entry<'py> = (Bound<'py, PyAny>, Py<PyAny>, bool, Vec<Py<PyAny>>, Vec<i64>);

#[pymethods]
impl PyGraphCore {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Find the number of the node with this key.
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

    /// Add nodes, all or none. Returns None, or the reason of the refusal: `"closed"`, `"key"`, `"task"` or
    /// `"dependency"`, the index of the entry, and the key of the node that has the task, or the index of the forgotten
    /// dependency.
    fn insert(&self, py: Python<'_>, entries: Vec<Entry<'_>>) -> PyResult<Option<RefusalTuple>> {
        let mut drafts = Vec::with_capacity(entries.len());
        for (key, item, is_task, depends_on, dependencies) in entries {
            drafts.push(Draft {
                hash: key.hash()?,
                key: key.unbind(),
                item,
                is_task,
                depends_on,
                dependencies: dependencies.into_iter().map(dependency).collect(),
                compared: 0,
            });
        }
        let refusal = self.insert_checked(py, drafts)?;
        refusal.map(|refusal| refusal.into_tuple(py)).transpose()
    }

    /// Add dependencies to a node, all or none. Returns None, or the reason of the refusal: `"state"` and the state of
    /// the node, or None if it was forgotten; `"dependency"` and the index of the forgotten dependency; or `"cycle"`
    /// and the keys from a dependency to the node. The second entry of the tuple is unused.
    #[expect(clippy::needless_pass_by_value, reason = "extracted from Python")]
    fn depend(
        &self,
        py: Python<'_>,
        node: Number,
        dependencies: Vec<Number>,
    ) -> PyResult<Option<RefusalTuple>> {
        let refusal = self.change(py, |state| state.depend(py, node, &dependencies))?;
        refusal.map(|refusal| refusal.into_tuple(py)).transpose()
    }

    /// Return the item of a node and its state; None if it was forgotten.
    fn item(&self, py: Python<'_>, node: Number) -> Option<(Py<PyAny>, usize)> {
        let state = self.0.borrow(py);
        let node = state.get(node)?;
        Some((node.item.clone_ref(py), node.phase.index()))
    }

    /// Take a node, for which `issued` is handed out; false if it is not ready.
    fn take(&self, py: Python<'_>, node: Number, issued: Py<PyAny>) -> PyResult<bool> {
        self.change(py, |state| state.take(node, issued))
    }

    /// Complete a node that is ready or running. Returns its previous state; None if it was forgotten.
    fn complete(&self, py: Python<'_>, node: Number, value: Py<PyAny>) -> PyResult<Option<usize>> {
        let phase = self.change(py, |state| state.complete(py, node, value))?;
        Ok(phase.map(Phase::index))
    }

    /// Fail a node that is ready or running. Returns its previous state; None if it was forgotten.
    fn fail(&self, py: Python<'_>, node: Number, error: Py<PyAny>) -> PyResult<Option<usize>> {
        let phase = self.change(py, |state| state.fail(py, node, error))?;
        Ok(phase.map(Phase::index))
    }

    /// Complete the running node for which this object was issued; false if there is none.
    fn completed(
        &self,
        py: Python<'_>,
        issued: &Bound<'_, PyAny>,
        value: Py<PyAny>,
    ) -> PyResult<bool> {
        self.settle_issued(py, issued, value, State::complete)
    }

    /// Fail the running node for which this object was issued; false if there is none.
    fn failed(
        &self,
        py: Python<'_>,
        issued: &Bound<'_, PyAny>,
        error: Py<PyAny>,
    ) -> PyResult<bool> {
        self.settle_issued(py, issued, error, State::fail)
    }

    /// Abort a node and its dependants. Returns the keys of the aborted nodes; None if the node was forgotten.
    fn abort(
        &self,
        py: Python<'_>,
        node: Number,
        error: Option<Py<PyAny>>,
    ) -> PyResult<Option<Vec<Py<PyAny>>>> {
        self.change(py, |state| state.abort(py, node, error))
    }

    /// Drop all settled nodes, and return their number.
    fn forget(&self, py: Python<'_>) -> PyResult<usize> {
        let forgotten = self.change(py, State::forget)?;
        Ok(forgotten.len())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.change(py, State::close)
    }

    /// Close the graph if all its nodes are settled, unless it is kept open. Returns whether it is closed and all are
    /// settled.
    fn close_if_over(&self, py: Python<'_>, keep_open: bool) -> bool {
        let mut state = self.0.borrow(py);
        let is_finished = state.is_finished();
        state.is_closed |= is_finished && !keep_open;
        state.is_closed && is_finished
    }

    /// Add a callback for nodes that are ready or become ready. Returns its number.
    fn on_ready(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<Number> {
        self.change(py, |state| state.listen(py, EventKind::Ready, callback))
    }

    /// Add a callback for the moments when all nodes are settled. Returns its number.
    fn on_finished(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<Number> {
        self.change(py, |state| state.listen(py, EventKind::Finished, callback))
    }

    /// Remove a callback, if it is registered.
    fn stop(&self, py: Python<'_>, listener: Number) {
        let callback = self.0.borrow(py).events.stop(listener);
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

    /// Count the nodes in each state.
    fn counts(&self, py: Python<'_>) -> [usize; Phase::COUNT] {
        self.0.borrow(py).counts()
    }

    /// List all nodes, or those in one state, oldest first, each as the arguments of `DependencyNode`.
    fn nodes(&self, py: Python<'_>, state: Option<usize>) -> Vec<Facts> {
        let graph = self.0.borrow(py);
        let wanted = graph
            .nodes()
            .filter(|node| state.is_none_or(|state| state == node.phase.index()));
        wanted.map(|node| node.facts(py)).collect()
    }

    /// Return one node, as the arguments of `DependencyNode`; None if it was forgotten.
    fn node(&self, py: Python<'_>, node: Number) -> Option<Facts> {
        let state = self.0.borrow(py);
        state.get(node).map(|node| node.facts(py))
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.0.borrow(py).len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.0.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        let state = std::mem::take(&mut *self.0.borrow(py));
        drop(state);
    }
}

impl PyGraphCore {
    /// Run one step, drop its garbage and dispatch its events: parts 2 to 4 of a call, see the top of this file.
    fn change<T>(&self, py: Python<'_>, step: impl FnOnce(&mut State) -> T) -> PyResult<T> {
        let (result, garbage) = {
            let mut state = self.0.borrow(py);
            (step(&mut state), std::mem::take(&mut state.garbage))
        };
        drop(garbage);
        self.dispatch(py)?;
        Ok(result)
    }

    /// Settle the running node for which this object was issued; false if there is none.
    fn settle_issued(
        &self,
        py: Python<'_>,
        issued: &Bound<'_, PyAny>,
        result: Py<PyAny>,
        settle: impl FnOnce(&mut State, Python<'_>, Number, Py<PyAny>) -> Option<Phase>,
    ) -> PyResult<bool> {
        self.change(py, |state| {
            if let Some(node) = state.running_as(issued) {
                settle(state, py, node, result).is_some()
            } else {
                state.garbage.push(result);
                false
            }
        })
    }

    /// Add a batch once each of its keys was compared with all nodes of its hash.
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

    /// Dispatch all events, unless another call is dispatching, which then dispatches these too. Raises the errors of
    /// the callbacks.
    fn dispatch(&self, py: Python<'_>) -> PyResult<()> {
        if !self.0.borrow(py).events.begin() {
            return Ok(());
        }
        let mut errors = Vec::new();
        loop {
            let next = self.0.borrow(py).events.next();
            let Some(mut event) = next else {
                break;
            };
            loop {
                let listener = self.0.borrow(py).events.listener(py, &event);
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
        py.import(intern!(py, "headrace.graph._errors"))?
            .call_method1(intern!(py, "raise_callback_errors"), (errors,))?;
        Ok(())
    }
}

/// List the keys that have the hash of a draft's key and were not compared with it, each with the index of the draft.
fn rivals(py: Python<'_>, state: &State, drafts: &mut [Draft]) -> Vec<(usize, Py<PyAny>)> {
    let mut rivals = Vec::new();
    for (index, draft) in drafts.iter_mut().enumerate() {
        let same = state.same_hash(draft.hash, draft.compared);
        rivals.extend(same.map(|(_, node)| (index, node.key.clone_ref(py))));
        draft.compared = state.next_number();
    }
    rivals
}

/// Return whether two keys are equal for a dict.
fn is_same(of_node: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(of_node.is(key) || of_node.eq(key)?)
}

fn dependency(number: i64) -> Dependency {
    match Number::try_from(number) {
        Ok(number) => Dependency::Node(number),
        Err(_) => Dependency::Draft(usize::try_from(!number).unwrap_or(usize::MAX)),
    }
}
