//! One source of a merge, and what is known of it.

use std::collections::VecDeque;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::task_context::Identity;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::object::iterative_drop::IterativeDrop;
use crate::source::{AnySource, Wait, async_gen};

/// Which slot: its place in the slab, and which of its tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) place: u32,
    pub(super) generation: u32,
}

/// What came of a pull of a source.
#[derive(Debug)]
pub(super) enum Outcome {
    Item(Py<PyAny>),
    /// It raised. Whether it can go on shows when it is asked again.
    Error(Box<PyErr>),
    /// It has no more.
    End,
}

/// Whether a source is to be asked for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    No,
    /// When there is nothing else to be taken, or together with others.
    Idle,
    /// By the next pull.
    Wanted,
}

/// Where a source is.
#[derive(Debug)]
pub(super) enum Status {
    /// Not inside an item: it has not begun, or it stands at its `yield`.
    Standing,
    /// A step of it is on the stack.
    Running,
    /// Inside an item. It waits for the future, or for a turn of the loop if there is none.
    Waiting {
        wait: Box<Wait>,
        future: Option<Py<PyAny>>,
    },
}

impl Status {
    /// Goes over to another status; nearly always from one that holds nothing.
    #[inline]
    pub(super) fn turn(&mut self, next: Self) {
        let old = std::mem::replace(self, next);
        if matches!(old, Self::Waiting { .. }) {
            drop(old);
        } else {
            // There is nothing to be dropped, which the compiler does not see by itself.
            std::mem::forget(old);
        }
    }
}

/// The slots of a merge, each at the place where it was put.
#[derive(Debug, Default)]
pub(super) struct Slots {
    entries: Vec<(u32, Option<Slot>)>,
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn insert(&mut self, slot: Slot) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 sources at a time")
        });
        let (generation, entry) = &mut self.entries[place as usize];
        *entry = Some(slot);
        Key {
            place,
            generation: *generation,
        }
    }

    #[must_use]
    pub(super) fn remove(&mut self, key: Key) -> Option<Slot> {
        let (generation, entry) = self.entries.get_mut(key.place as usize)?;
        if *generation != key.generation {
            return None;
        }
        *generation = generation.wrapping_add(1);
        self.free.push(key.place);
        entry.take()
    }

    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<&Slot> {
        match self.entries.get(key.place as usize)? {
            (generation, Some(slot)) if *generation == key.generation => Some(slot),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Slot> {
        match self.entries.get_mut(key.place as usize)? {
            (generation, Some(slot)) if *generation == key.generation => Some(slot),
            _ => None,
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.entries
            .iter_mut()
            .filter_map(|(_, slot)| slot.as_mut())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.entries.iter().filter_map(|(_, slot)| slot.as_ref())
    }
}

/// A generator, its task and its context.
pub(super) type Running<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// One source.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a source may be wanted, closing, removed, ... in any combination"
)]
pub(super) struct Slot {
    /// By which it goes in a message: its label, or its number.
    pub(super) name: Py<PyAny>,
    /// How many were given before it.
    pub(super) number: usize,
    pub(super) is_labelled: bool,
    pub(super) is_cutoff: bool,
    /// It was given at construction: a new cycle begins with it.
    pub(super) is_given: bool,
    pub(super) feed: AnySource,
    /// It is stepped under a task of its own.
    pub(super) is_foreign: bool,
    pub(super) identity: Option<Identity>,
    /// What its task is parked on.
    pub(super) parking: Option<Py<PyAny>>,
    /// The callback for what it waits for, in a tuple of arguments.
    pub(super) resumption: Option<Py<PyTuple>>,
    /// With which that is to be called: `{"context": context}`.
    pub(super) keywords: Option<Py<PyDict>>,
    pub(super) status: Status,
    /// What it gave and nobody took yet.
    pub(super) queue: VecDeque<Outcome>,
    /// How often it is in the list of those that are ready.
    pub(super) hints: usize,
    /// In which list of those to be asked it is.
    pub(super) asked: Asked,
    /// It has given everything at once so far: nothing is won by asking it before it must be.
    pub(super) is_prompt: bool,
    /// Its task was cancelled, and it has not heard of that yet.
    pub(super) struck: Option<PyErr>,
    /// It gives nothing more.
    pub(super) has_ended: bool,
    /// That is the last of what it gave, and was not taken yet.
    pub(super) holds_end: bool,
    /// It is to be closed, or being closed.
    pub(super) is_closing: bool,
    /// It was cancelled by us, in order to be closed.
    pub(super) was_cancelled: bool,
    /// It is closed, and its task has ended.
    pub(super) is_gone: bool,
    /// Its end was taken, or it was removed: the consumer is through with it.
    pub(super) is_done: bool,
    /// The last round in which it gave an item.
    pub(super) round: u64,
    /// What the user gave.
    pub(super) source: IterativeDrop<PyAny>,
}

impl Slot {
    pub(super) fn new(
        source: Py<PyAny>,
        number: usize,
        name: Py<PyAny>,
        is_labelled: bool,
        feed: AnySource,
        is_foreign: bool,
    ) -> Self {
        Self {
            name,
            number,
            is_labelled,
            is_cutoff: false,
            is_given: false,
            feed,
            is_foreign,
            identity: None,
            parking: None,
            resumption: None,
            keywords: None,
            status: Status::Standing,
            queue: VecDeque::new(),
            hints: 0,
            asked: Asked::No,
            is_prompt: false,
            struck: None,
            has_ended: false,
            holds_end: false,
            is_closing: false,
            was_cancelled: false,
            is_gone: false,
            is_done: false,
            round: 0,
            source: source.into(),
        }
    }

    /// Whether it has not come to its end.
    pub(super) fn is_present(&self) -> bool {
        !self.has_ended && !self.is_closing && !self.is_done && !self.is_cutoff
    }

    /// Whether it may be asked for another item.
    #[inline]
    pub(super) fn may_be_asked(&self, prefetch: usize) -> bool {
        matches!(self.status, Status::Standing)
            && !self.has_ended
            && !self.is_closing
            && self.queue.len() < prefetch
    }

    /// Whether it has an item that goes to the consumer as it is.
    #[inline]
    pub(super) fn has_bare_item(&self) -> bool {
        !self.is_labelled && matches!(self.queue.front(), Some(Outcome::Item(_)))
    }

    /// Whether it lets the loop have a turn, and waits for nothing else.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.status, Status::Waiting { future: None, .. })
    }

    /// If it is an async generator that has begun, and that has nothing to hear of, marks it as being
    /// stepped, and gives it with its task and its context. It stands, or it has rested.
    #[expect(clippy::inline_always, reason = "it is a part of two loops")]
    #[inline(always)]
    pub(super) fn run<'py>(&mut self, py: Python<'py>) -> Option<Running<'py>> {
        let AnySource::AsyncIter(feed) = &self.feed else {
            return None;
        };
        let identity = self.identity.as_ref()?;
        if self.struck.is_some() || !self.is_foreign {
            return None;
        }
        let has_rested = match &self.status {
            Status::Standing => false,
            Status::Waiting { wait, future: None } if matches!(**wait, Wait::Agen) => true,
            Status::Waiting { .. } | Status::Running => return None,
        };
        let agen = feed.get().running_agen(py)?;
        if has_rested {
            async_gen::wake(&agen);
        }
        self.status.turn(Status::Running);
        Some((
            agen,
            identity.task.bind(py).clone(),
            identity.context.bind(py).clone(),
        ))
    }

    /// As it was before its first pull.
    pub(super) fn renewed(&self, py: Python<'_>) -> Self {
        let mut fresh = Self::new(
            self.source.clone_ref(py),
            self.number,
            self.name.clone_ref(py),
            self.is_labelled,
            self.feed.clone_ref(py),
            self.is_foreign,
        );
        fresh.is_cutoff = self.is_cutoff;
        fresh.is_given = self.is_given;
        fresh.is_prompt = self.is_prompt;
        fresh
    }
}

impl Traverse for Slot {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(&self.source)?;
        visit(&self.name)?;
        self.feed.traverse(visit)?;
        if let Some(identity) = &self.identity {
            identity.traverse(visit)?;
        }
        if let Some(parking) = &self.parking {
            visit(parking)?;
        }
        if let Some(resumption) = &self.resumption {
            visit(resumption.as_any())?;
        }
        if let Some(keywords) = &self.keywords {
            visit(keywords.as_any())?;
        }
        if let Status::Waiting { wait, future } = &self.status {
            wait.traverse(visit)?;
            if let Some(future) = future {
                visit(future)?;
            }
        }
        for outcome in &self.queue {
            if let Outcome::Item(item) = outcome {
                visit(item)?;
            }
        }
        Ok(())
    }
}
