//! The nodes of a graph, their states and their edges.
//!
//! Each node counts its dependencies that are not completed, and lists the nodes that depend on it. Settling a node walks
//! that list once and drops it. So each edge is walked once in the life of the graph, and no search finds what has
//! become ready.
//!
//! Nothing here calls Python or drops a Python object: see the top of [the module](super).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use pyo3::prelude::*;

use super::news::{Kind, News};
use super::node::{Node, Number, Phase};
use crate::object::gc::{Traverse, VisitError, Visitor};

/// A node that is to be added.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) key: Py<PyAny>,
    pub(super) hash: isize,
    pub(super) item: Py<PyAny>,
    pub(super) is_task: bool,
    pub(super) depends_on: Vec<Py<PyAny>>,
    pub(super) needs: Vec<Need>,
    /// All nodes with a lower number were compared with its key, and differ.
    pub(super) compared: Number,
}

/// A dependency of a draft.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// A node of the graph.
    Old(Number),
    /// A draft of the same batch, by its index.
    New(usize),
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
    Need(usize, usize),
}

/// The result of `depend`.
#[derive(Debug)]
pub(super) enum Dependence {
    Done,
    /// Nothing was done, because the node was forgotten, or is in this state.
    Not(Option<Phase>),
    /// The dependency with this index was forgotten.
    Forgotten(usize),
    /// The keys from one of the dependencies to the node, each of which depends on the next.
    Cycle(Vec<Py<PyAny>>),
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// In the order in which they were added.
    nodes: BTreeMap<Number, Node>,
    /// The newest node for each hash of a key; `Node::older` leads on from there.
    newest: HashMap<isize, Number>,
    next: Number,
    /// The ready nodes, by their place.
    ready: BTreeMap<Number, Number>,
    /// The running nodes, by the address of what was given out for them, and their place.
    running: BTreeMap<(usize, Number), Number>,
    /// The unsettled nodes whose items are tasks, by the address of the task.
    tasks: HashMap<usize, Number>,
    counts: [usize; Phase::COUNT],
    pub(super) is_closed: bool,
    pub(super) news: News,
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

    /// Whether all nodes are settled.
    pub(super) fn is_finished(&self) -> bool {
        [Phase::Pending, Phase::Ready, Phase::Running]
            .iter()
            .all(|phase| self.counts[phase.index()] == 0)
    }

    pub(super) fn get(&self, number: Number) -> Option<&Node> {
        self.nodes.get(&number)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The nodes from a number on whose keys have this hash, newest first.
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

    /// The number that the next node, listener, event or place gets.
    pub(super) fn next_number(&self) -> Number {
        self.next
    }

    fn number(&mut self) -> Number {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Why a batch cannot be added, but for its keys.
    pub(super) fn refuse(&self, py: Python<'_>, drafts: &[Draft]) -> Option<Refusal> {
        for (index, draft) in drafts.iter().enumerate() {
            if draft.is_task
                && let Some(other) = self.tasks.get(&address(&draft.item))
            {
                return Some(Refusal::Task(index, self.nodes[other].key.clone_ref(py)));
            }
            let forgotten = draft.needs.iter().position(
                |need| matches!(need, Need::Old(number) if !self.nodes.contains_key(number)),
            );
            if let Some(need) = forgotten {
                return Some(Refusal::Need(index, need));
            }
        }
        None
    }

    /// Adds a batch. Its keys are new, its tasks are free, and its dependencies are there.
    pub(super) fn insert(&mut self, py: Python<'_>, drafts: Vec<Draft>) {
        let first = self.next;
        self.next += drafts.len() as Number;
        // All are counted first: otherwise the graph would seem finished when the first of them is aborted.
        self.counts[Phase::Pending.index()] += drafts.len();
        let mut edges = Vec::with_capacity(drafts.len());
        for (number, draft) in (first..).zip(drafts) {
            edges.push(draft.needs);
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
                place: 0,
                waits_for: 0,
                dependants: Vec::new(),
                given: None,
                value: None,
                error: None,
                caused_by: None,
            };
            self.nodes.insert(number, node);
        }
        for (number, needs) in (first..).zip(edges) {
            let needs: Vec<_> = needs
                .into_iter()
                .map(|need| match need {
                    Need::Old(number) => number,
                    Need::New(index) => first + index as Number,
                })
                .collect();
            self.wait_for(py, number, &needs);
        }
    }

    /// Adds dependencies to a node that was not taken yet.
    pub(super) fn depend(
        &mut self,
        py: Python<'_>,
        number: Number,
        needs: &[Number],
    ) -> Dependence {
        let Some(node) = self.nodes.get(&number) else {
            return Dependence::Not(None);
        };
        let phase = node.phase;
        if !matches!(phase, Phase::Pending | Phase::Ready) {
            return Dependence::Not(Some(phase));
        }
        if let Some(index) = needs.iter().position(|need| !self.nodes.contains_key(need)) {
            return Dependence::Forgotten(index);
        }
        if let Some(path) = self.path(py, number, needs) {
            return Dependence::Cycle(path);
        }
        let keys: Vec<_> = needs
            .iter()
            .map(|need| self.nodes[need].key.clone_ref(py))
            .collect();
        self.node(number).depends_on.extend(keys);
        let completed = |need| self.nodes[need].phase == Phase::Completed;
        if needs.iter().all(completed) {
            return Dependence::Done;
        }
        if phase == Phase::Ready {
            self.leave_place(number);
            self.set_phase(number, Phase::Pending);
        }
        self.wait_for(py, number, needs);
        Dependence::Done
    }

    /// The keys from one of `goals` to `start`, each of which depends on the next, if any depends on `start`.
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

    /// Adds the edges of a pending node. It becomes ready if it waits for nothing, and is aborted if it waits in vain.
    fn wait_for(&mut self, py: Python<'_>, number: Number, needs: &[Number]) {
        let dead = needs
            .iter()
            .map(|need| &self.nodes[need])
            .find(|need| matches!(need.phase, Phase::Failed | Phase::Aborted));
        if let Some(dead) = dead {
            let error = dead.error.as_ref().map(|error| error.clone_ref(py));
            let cause = dead.caused_by.as_ref().map(|key| key.clone_ref(py));
            self.abort_all(py, VecDeque::from([number]), error, cause);
            return;
        }
        for need in needs {
            let need = self.node(*need);
            if need.phase != Phase::Completed {
                need.dependants.push(number);
                self.node(number).waits_for += 1;
            }
        }
        if self.nodes[&number].waits_for == 0 {
            self.make_ready(py, number);
        }
    }

    /// Takes a ready node, for which this object is given out; false if it is not ready.
    pub(super) fn take(&mut self, number: Number, given: Py<PyAny>) -> bool {
        let place = self.number();
        let ready = self
            .nodes
            .get(&number)
            .is_some_and(|node| node.phase == Phase::Ready);
        if !ready {
            self.garbage.push(given);
            return false;
        }
        self.leave_place(number);
        self.set_phase(number, Phase::Running);
        self.running.insert((address(&given), place), number);
        let node = self.node(number);
        node.place = place;
        node.given = Some(given);
        true
    }

    /// The node that is running with this very object, of several the one that was taken first.
    pub(super) fn running_with(&self, item: &Bound<'_, PyAny>) -> Option<Number> {
        let address = item.as_ptr().addr();
        let mut range = self.running.range((address, 0)..=(address, Number::MAX));
        range.next().map(|(_, &number)| number)
    }

    /// Keeps an object that is not needed, to be dropped after the borrow. Gives false.
    pub(super) fn let_go(&mut self, object: Py<PyAny>) -> bool {
        self.garbage.push(object);
        false
    }

    /// Completes a node that is ready or running. Gives the state that it was in.
    pub(super) fn complete(
        &mut self,
        py: Python<'_>,
        number: Number,
        value: Py<PyAny>,
    ) -> Option<Phase> {
        let phase = self.nodes.get(&number).map(|node| node.phase);
        if !matches!(phase, Some(Phase::Ready | Phase::Running)) {
            self.garbage.push(value);
            return phase;
        }
        self.node(number).value = Some(value);
        for dependant in self.settle(number, Phase::Completed) {
            if let Some(node) = self.unsettled(dependant) {
                node.waits_for -= 1;
                if node.waits_for == 0 {
                    self.make_ready(py, dependant);
                }
            }
        }
        phase
    }

    /// Fails a node that is ready or running, and aborts what depends on it. Gives the state that it was in.
    pub(super) fn fail(
        &mut self,
        py: Python<'_>,
        number: Number,
        error: Py<PyAny>,
    ) -> Option<Phase> {
        let phase = self.nodes.get(&number).map(|node| node.phase);
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

    /// Aborts a node and what depends on it, unless it is settled. Gives the keys of those that were aborted.
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

    /// Gives a node its last state. Gives the nodes that depend on it.
    fn settle(&mut self, number: Number, phase: Phase) -> Vec<Number> {
        self.leave_place(number);
        self.set_phase(number, phase);
        let node = self.node(number);
        let dependants = std::mem::take(&mut node.dependants);
        let given = node.given.take();
        let task = node.is_task.then(|| address(&node.item));
        self.garbage.extend(given);
        if let Some(task) = task {
            self.tasks.remove(&task);
        }
        if self.is_finished() {
            self.finished();
        }
        dependants
    }

    /// Removes a node from the ready or the running nodes.
    fn leave_place(&mut self, number: Number) {
        let node = &self.nodes[&number];
        if let Some(given) = &node.given {
            self.running.remove(&(address(given), node.place));
        } else if node.phase == Phase::Ready {
            self.ready.remove(&node.place);
        }
    }

    fn make_ready(&mut self, py: Python<'_>, number: Number) {
        let place = self.number();
        self.set_phase(number, Phase::Ready);
        self.ready.insert(place, number);
        let node = self.node(number);
        node.place = place;
        let key = node.key.clone_ref(py);
        self.news.record(place, Kind::Ready, Some(key));
    }

    fn set_phase(&mut self, number: Number, phase: Phase) {
        let node = self.node(number);
        let before = std::mem::replace(&mut node.phase, phase);
        self.counts[before.index()] -= 1;
        self.counts[phase.index()] += 1;
    }

    /// A node that is known to be there.
    fn node(&mut self, number: Number) -> &mut Node {
        self.nodes
            .get_mut(&number)
            .expect("this node was found in the same step, and is not forgotten meanwhile")
    }

    /// A node at the end of an edge. An aborted one may have been forgotten, while the edge to it was still there.
    fn unsettled(&mut self, number: Number) -> Option<&mut Node> {
        let node = self.nodes.get_mut(&number);
        node.filter(|node| !node.phase.is_settled())
    }

    /// Removes all settled nodes, and gives them, to be dropped after the borrow.
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

    /// No node will be added any more.
    pub(super) fn close(&mut self) {
        if !self.is_closed && self.is_finished() {
            self.finished();
        }
        self.is_closed = true;
    }

    fn finished(&mut self) {
        let number = self.number();
        self.news.record(number, Kind::Finished, None);
    }

    /// Adds a listener, and records for it the nodes that are ready. Gives its number.
    pub(super) fn listen(&mut self, py: Python<'_>, kind: Kind, callback: Py<PyAny>) -> Number {
        let listener = self.number();
        self.news.listen(listener, kind, callback);
        if kind == Kind::Ready {
            for number in self.ready.values() {
                let key = self.nodes[number].key.clone_ref(py);
                self.news.record_past(listener, key);
            }
        }
        listener
    }
}

impl Traverse for State {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        for node in self.nodes.values() {
            node.traverse(visit)?;
        }
        self.garbage.iter().try_for_each(&mut *visit)?;
        self.news.traverse(visit)
    }
}

fn address(object: &Py<PyAny>) -> usize {
    object.as_ptr().addr()
}
