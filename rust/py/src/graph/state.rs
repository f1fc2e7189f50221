//! The nodes of a graph, their states and their edges. Each method of `PyGraphCore` is a step on this state.
//!
//! Each node counts its dependencies that are not completed, and lists the nodes that depend on it. Settling a node walks
//! that list once and drops it. So each edge is walked once in the life of the graph, and no search is needed to find nodes
//! that become ready.
//!
//! This file neither calls Python nor drops a Python object: see the top of [the module](super).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use pyo3::prelude::*;

use super::draft::{Dependency, Draft, Refusal};
use super::events::{EventDispatcher, EventKind};
use super::node::{Node, Number, Phase};
use crate::object::gc::traverse;

#[derive(Debug, Default)]
pub(super) struct State {
    /// In the order in which they were added.
    nodes: BTreeMap<Number, Node>,
    /// The newest node for each hash of a key; `Node::older` leads on from there.
    newest: HashMap<isize, Number>,
    next: Number,
    /// The ready nodes, by their position.
    ready: BTreeMap<Number, Number>,
    /// The running nodes, by the address of the issued object and their position.
    running: BTreeMap<(usize, Number), Number>,
    /// The unsettled nodes whose items are tasks, by the address of the task.
    tasks: HashMap<usize, Number>,
    counts: [usize; Phase::COUNT],
    pub(super) is_closed: bool,
    pub(super) events: EventDispatcher,
    /// Objects that are to be dropped after the borrow.
    pub(super) garbage: Vec<Py<PyAny>>,
}

impl State {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn counts(&self) -> [usize; Phase::COUNT] {
        self.counts
    }

    /// Return whether all nodes are settled.
    pub(super) fn is_finished(&self) -> bool {
        [Phase::Pending, Phase::Ready, Phase::Running]
            .iter()
            .all(|phase| self.counts[phase.index()] == 0)
    }

    pub(super) fn get(&self, number: Number) -> Option<&Node> {
        self.nodes.get(&number)
    }

    fn phase(&self, number: Number) -> Option<Phase> {
        self.get(number).map(|node| node.phase)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Iterate over the nodes from a number on whose keys have this hash, newest first.
    pub(super) fn same_hash(
        &self,
        hash: isize,
        from: Number,
    ) -> impl Iterator<Item = (Number, &Node)> {
        let newest = self.newest.get(&hash).copied();
        let mut step = newest.filter(|&number| number >= from);
        std::iter::from_fn(move || {
            let number = step?;
            let node = &self.nodes[&number];
            step = node.older.filter(|&number| number >= from);
            Some((number, node))
        })
    }

    /// Return the number of the next node, listener, event or position.
    pub(super) fn next_number(&self) -> Number {
        self.next
    }

    fn number(&mut self) -> Number {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Return the reason why a batch cannot be added, apart from its keys.
    pub(super) fn refuse(&self, py: Python<'_>, drafts: &[Draft]) -> Option<Refusal> {
        let mut owners = HashMap::new();
        for (index, draft) in drafts.iter().enumerate() {
            if draft.is_task {
                let task = address(&draft.item);
                let other = self.tasks.get(&task).map(|node| &self.nodes[node].key);
                if let Some(owner) = other.or_else(|| owners.insert(task, &draft.key)) {
                    return Some(Refusal::Task(index, owner.clone_ref(py)));
                }
            }
            let forgotten = draft.dependencies.iter().position(
                |dependency| matches!(dependency, Dependency::Node(number) if !self.nodes.contains_key(number)),
            );
            if let Some(dependency) = forgotten {
                return Some(Refusal::Dependency(index, dependency));
            }
        }
        None
    }

    /// Add a batch. The caller has checked that its keys are new, its tasks are free, and its dependencies exist.
    pub(super) fn insert(&mut self, py: Python<'_>, drafts: Vec<Draft>) {
        let first = self.next;
        self.next += drafts.len() as Number;
        // Count all nodes first: otherwise the graph would seem finished when the first of them is aborted.
        self.counts[Phase::Pending.index()] += drafts.len();
        let mut edges = Vec::with_capacity(drafts.len());
        for (number, draft) in (first..).zip(drafts) {
            edges.push(draft.dependencies);
            if draft.is_task {
                self.tasks.insert(address(&draft.item), number);
            }
            let node = Node {
                key: draft.key,
                hash: draft.hash,
                older: self.newest.insert(draft.hash, number),
                item: draft.item,
                is_task: draft.is_task,
                depends_on: draft.depends_on,
                phase: Phase::Pending,
                position: 0,
                unmet: 0,
                dependants: Vec::new(),
                issued: None,
                value: None,
                error: None,
                caused_by: None,
            };
            self.nodes.insert(number, node);
        }
        for (number, dependencies) in (first..).zip(edges) {
            let dependencies: Vec<_> = dependencies
                .into_iter()
                .map(|dependency| match dependency {
                    Dependency::Node(number) => number,
                    Dependency::Draft(index) => first + index as Number,
                })
                .collect();
            self.add_edges(py, number, &dependencies);
        }
    }

    /// Add dependencies to a node that was not taken yet. Returns the reason if it does nothing.
    pub(super) fn depend(
        &mut self,
        py: Python<'_>,
        number: Number,
        dependencies: &[Number],
    ) -> Option<Refusal> {
        let phase = self.phase(number);
        if !matches!(phase, Some(Phase::Pending | Phase::Ready)) {
            return Some(Refusal::State(phase));
        }
        let is_forgotten = |dependency| !self.nodes.contains_key(dependency);
        if let Some(index) = dependencies.iter().position(is_forgotten) {
            return Some(Refusal::Dependency(0, index));
        }
        if let Some(path) = self.path(py, number, dependencies) {
            return Some(Refusal::Cycle(path));
        }
        let keys: Vec<_> = dependencies
            .iter()
            .map(|dependency| self.nodes[dependency].key.clone_ref(py))
            .collect();
        self.node(number).depends_on.extend(keys);
        let completed = |dependency| self.nodes[dependency].phase == Phase::Completed;
        if dependencies.iter().all(completed) {
            return None;
        }
        if phase == Some(Phase::Ready) {
            self.remove_position(number);
            self.set_phase(number, Phase::Pending);
        }
        self.add_edges(py, number, dependencies);
        None
    }

    /// Return the keys from one of `goals` to `start`, each of which depends on the next, if any depends on `start`.
    ///
    /// Cost: O(the nodes that depend on `start`, their edges, and the goals), without recursion.
    fn path(&self, py: Python<'_>, start: Number, goals: &[Number]) -> Option<Vec<Py<PyAny>>> {
        let goals: HashSet<_> = goals.iter().copied().collect();
        let mut came_from = HashMap::from([(start, None)]);
        let mut queue = VecDeque::from([start]);
        while let Some(number) = queue.pop_front() {
            if goals.contains(&number) {
                let steps = std::iter::successors(Some(number), |step| came_from[step]);
                return Some(
                    steps
                        .map(|step| self.nodes[&step].key.clone_ref(py))
                        .collect(),
                );
            }
            let dependants = self.nodes.get(&number).map(|node| &node.dependants);
            for &dependant in dependants.into_iter().flatten() {
                came_from.entry(dependant).or_insert_with(|| {
                    queue.push_back(dependant);
                    Some(number)
                });
            }
        }
        None
    }

    /// Add the edges of a pending node. It becomes ready if all dependencies are completed, and is aborted if one has
    /// failed or was aborted.
    fn add_edges(&mut self, py: Python<'_>, number: Number, dependencies: &[Number]) {
        let failed = dependencies
            .iter()
            .map(|dependency| &self.nodes[dependency])
            .find(|dependency| matches!(dependency.phase, Phase::Failed | Phase::Aborted));
        if let Some(failed) = failed {
            let error = failed.error.as_ref().map(|error| error.clone_ref(py));
            let cause = failed.caused_by.as_ref().map(|key| key.clone_ref(py));
            self.abort_all(py, VecDeque::from([number]), error, cause);
            return;
        }
        for dependency in dependencies {
            let dependency = self.node(*dependency);
            if dependency.phase != Phase::Completed {
                dependency.dependants.push(number);
                self.node(number).unmet += 1;
            }
        }
        if self.nodes[&number].unmet == 0 {
            self.make_ready(py, number);
        }
    }

    /// Take a ready node, for which this object is issued; false if it is not ready.
    pub(super) fn take(&mut self, number: Number, issued: Py<PyAny>) -> bool {
        let position = self.number();
        if self.phase(number) != Some(Phase::Ready) {
            self.garbage.push(issued);
            return false;
        }
        self.remove_position(number);
        self.set_phase(number, Phase::Running);
        self.running.insert((address(&issued), position), number);
        let node = self.node(number);
        node.position = position;
        node.issued = Some(issued);
        true
    }

    /// Find the running node for which this very object was issued; of several, the one that was taken first.
    pub(super) fn running_as(&self, item: &Bound<'_, PyAny>) -> Option<Number> {
        let address = item.as_ptr().addr();
        let mut range = self.running.range((address, 0)..=(address, Number::MAX));
        range.next().map(|(_, &number)| number)
    }

    /// Complete a node that is ready or running. Returns its previous phase.
    pub(super) fn complete(
        &mut self,
        py: Python<'_>,
        number: Number,
        value: Py<PyAny>,
    ) -> Option<Phase> {
        let phase = self.phase(number);
        if !matches!(phase, Some(Phase::Ready | Phase::Running)) {
            self.garbage.push(value);
            return phase;
        }
        self.node(number).value = Some(value);
        for dependant in self.settle(number, Phase::Completed) {
            if let Some(node) = self.unsettled(dependant) {
                node.unmet -= 1;
                if node.unmet == 0 {
                    self.make_ready(py, dependant);
                }
            }
        }
        phase
    }

    /// Fail a node that is ready or running, and abort its dependants. Returns its previous phase.
    pub(super) fn fail(
        &mut self,
        py: Python<'_>,
        number: Number,
        error: Py<PyAny>,
    ) -> Option<Phase> {
        let phase = self.phase(number);
        if !matches!(phase, Some(Phase::Ready | Phase::Running)) {
            self.garbage.push(error);
            return phase;
        }
        let node = self.node(number);
        let cause = node.key.clone_ref(py);
        node.caused_by = Some(cause.clone_ref(py));
        node.error = Some(error.clone_ref(py));
        let dependants = self.settle(number, Phase::Failed);
        self.abort_all(py, dependants.into(), Some(error), Some(cause));
        phase
    }

    /// Abort a node and its dependants, unless it is settled. Returns the keys of the aborted nodes.
    pub(super) fn abort(
        &mut self,
        py: Python<'_>,
        number: Number,
        error: Option<Py<PyAny>>,
    ) -> Option<Vec<Py<PyAny>>> {
        let Some(node) = self.nodes.get(&number) else {
            self.garbage.extend(error);
            return None;
        };
        let cause = node.key.clone_ref(py);
        let aborted = self.abort_all(py, VecDeque::from([number]), error, Some(cause));
        let keys = aborted
            .iter()
            .map(|number| self.nodes[number].key.clone_ref(py));
        Some(keys.collect())
    }

    fn abort_all(
        &mut self,
        py: Python<'_>,
        mut left: VecDeque<Number>,
        error: Option<Py<PyAny>>,
        cause: Option<Py<PyAny>>,
    ) -> Vec<Number> {
        let mut aborted = Vec::new();
        while let Some(number) = left.pop_front() {
            let Some(node) = self.unsettled(number) else {
                continue;
            };
            node.error = error.as_ref().map(|error| error.clone_ref(py));
            node.caused_by = cause.as_ref().map(|key| key.clone_ref(py));
            aborted.push(number);
            left.extend(self.settle(number, Phase::Aborted));
        }
        self.garbage.extend(error);
        self.garbage.extend(cause);
        aborted
    }

    /// Set the final phase of a node. Returns the nodes that depend on it.
    fn settle(&mut self, number: Number, phase: Phase) -> Vec<Number> {
        self.remove_position(number);
        self.set_phase(number, phase);
        let node = self.node(number);
        let dependants = std::mem::take(&mut node.dependants);
        let issued = node.issued.take();
        let task = node.is_task.then(|| address(&node.item));
        self.garbage.extend(issued);
        if let Some(task) = task {
            self.tasks.remove(&task);
        }
        if self.is_finished() {
            self.finished();
        }
        dependants
    }

    /// Remove a node from the ready or the running nodes.
    fn remove_position(&mut self, number: Number) {
        let node = &self.nodes[&number];
        if let Some(issued) = &node.issued {
            self.running.remove(&(address(issued), node.position));
        } else if node.phase == Phase::Ready {
            self.ready.remove(&node.position);
        }
    }

    fn make_ready(&mut self, py: Python<'_>, number: Number) {
        let position = self.number();
        self.set_phase(number, Phase::Ready);
        self.ready.insert(position, number);
        let node = self.node(number);
        node.position = position;
        let key = node.key.clone_ref(py);
        self.events.record(position, EventKind::Ready, Some(key));
    }

    fn set_phase(&mut self, number: Number, phase: Phase) {
        let node = self.node(number);
        let before = std::mem::replace(&mut node.phase, phase);
        self.counts[before.index()] -= 1;
        self.counts[phase.index()] += 1;
    }

    /// Return a node that is known to exist.
    fn node(&mut self, number: Number) -> &mut Node {
        self.nodes
            .get_mut(&number)
            .expect("this node was found in the same step, and is not forgotten meanwhile")
    }

    /// Return the node at the end of an edge, unless it is settled. An aborted node may be forgotten while the edge to
    /// it still exists.
    fn unsettled(&mut self, number: Number) -> Option<&mut Node> {
        let node = self.nodes.get_mut(&number);
        node.filter(|node| !node.phase.is_settled())
    }

    /// Remove all settled nodes and return them, to be dropped after the borrow.
    pub(super) fn forget(&mut self) -> Vec<Node> {
        self.newest.clear();
        let mut forgotten = Vec::new();
        for (number, mut node) in std::mem::take(&mut self.nodes) {
            if node.phase.is_settled() {
                self.counts[node.phase.index()] -= 1;
                forgotten.push(node);
            } else {
                node.older = self.newest.insert(node.hash, number);
                self.nodes.insert(number, node);
            }
        }
        forgotten
    }

    /// Refuse further nodes.
    pub(super) fn close(&mut self) {
        if !self.is_closed && self.is_finished() {
            self.finished();
        }
        self.is_closed = true;
    }

    fn finished(&mut self) {
        let number = self.number();
        self.events.record(number, EventKind::Finished, None);
    }

    /// Add a listener, and record for it the nodes that are ready. Returns its number.
    pub(super) fn listen(
        &mut self,
        py: Python<'_>,
        kind: EventKind,
        callback: Py<PyAny>,
    ) -> Number {
        let listener = self.number();
        self.events.listen(listener, kind, callback);
        if kind == EventKind::Ready {
            for number in self.ready.values() {
                let key = self.nodes[number].key.clone_ref(py);
                self.events.record_past(listener, key);
            }
        }
        listener
    }
}

traverse!(State {
    nodes,
    garbage,
    events
});

fn address(object: &Py<PyAny>) -> usize {
    object.as_ptr().addr()
}
