//! A fused stretch of links, and the loop that runs it.
//!
//! A line is built when a link is first pulled: from that link upwards, as long as the links are
//! stock and nobody else's. Where it meets one that is not (a subclass that overrides the protocol,
//! or a link with two consumers), that one becomes a foreign source of the stretch.
//!
//! **The line is a cache.** What must not be lost, a kernel's state and an item that a cancelled
//! pull left, lives in the links. So a line can be thrown away and built again at any moment
//! between two items. That moment comes when somebody starts to pull a link in its middle: the
//! [`Claim`] that the line has on its links is revoked, and it ends before that link from its next
//! item on.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::fusion::Claim;
use super::link::PullLink;
use super::state::Origin;
use super::suspended::Place;
use crate::coroutine::{Inner, Step};
use crate::errors;
use crate::errors::RaisedError;
use crate::kernel::{AnyKernel, Caught, Output};
use crate::object::gc::traverse;
use crate::runtime::yield_budget;
use crate::source::{AnySource, PyAsyncIterSource, SourcePoll, Wait};

/// One link of a line.
#[derive(Debug)]
pub(super) struct Stage {
    /// `None` for the last one, which owns the line: it must not be kept alive by what it owns.
    link: Option<Py<PullLink>>,
    kernel: AnyKernel,
}

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct Line {
    pub(super) feed: AnySource,
    /// From the source's side to the consumer's.
    pub(super) stages: Vec<Stage>,
    pub(super) claim: Arc<Claim>,
    /// The stages whose links have something that goes before what comes from above: an item that a
    /// cancelled pull left, or more of what their kernel made of the last one. Upmost first.
    loaded: Vec<usize>,
    /// The last of those, and what it hands on: for as long as its items are there at once, they need
    /// not be looked for.
    handing: Option<(usize, AnySource)>,
    /// The link of the feed, unless it is the last one itself.
    head: Option<Py<PullLink>>,
    /// Items came back to that link.
    head_is_loaded: bool,
    /// Nothing more comes from above this stage: the stages from here on are still to be flushed.
    ending: Option<usize>,
    /// Whether either says that the next item does not come from the feed.
    pub(super) is_special: bool,
}

/// What running a line came to.
#[derive(Debug)]
pub(crate) enum Advance<'py> {
    Item(Bound<'py, PyAny>),
    End,
    /// Suspended: hand the object up. Boxed, since an item that is ready should not be moved around
    /// in the size of one that is not.
    Suspend(Box<Suspended<'py>>),
}

/// Where a pull is suspended, and what to hand up to its task.
#[derive(Debug)]
pub(crate) struct Suspended<'py> {
    pub(crate) place: Place,
    pub(crate) object: Bound<'py, PyAny>,
}

impl<'py> Suspended<'py> {
    fn at(place: Place, object: Bound<'py, PyAny>) -> Advance<'py> {
        Advance::Suspend(Box::new(Self { place, object }))
    }
}

/// An item on its way, and the stage that it enters next.
pub(super) type Entry<'py> = (Bound<'py, PyAny>, usize);

impl Line {
    /// Builds the line that ends in this link.
    pub(crate) fn build(tail: &Bound<'_, PullLink>) -> PyResult<Self> {
        let py = tail.py();
        let claim = Claim::of(tail)?;
        let mut stages = Vec::new();
        let mut link = tail.clone();
        let mut is_fused = true;
        let feed = loop {
            if PullLink::has_implementation(&link)? {
                break PullLink::implementation(&link)?;
            }
            match link.get().origin(py) {
                Origin::Feed(feed) => {
                    if !link.is(tail) {
                        link.get().claimed_by(py, &claim, 0);
                    }
                    break feed;
                }
                Origin::Stage { source, kernel } => {
                    let source = source.bind(py).clone();
                    stages.push(Stage {
                        link: (!link.is(tail)).then(|| link.clone().unbind()),
                        kernel,
                    });
                    if !PullLink::can_fuse(&source)? {
                        is_fused = false;
                        let foreign = PyAsyncIterSource::over(source.as_any());
                        break AnySource::AsyncIter(Py::new(py, foreign)?);
                    }
                    link = source;
                }
                Origin::Unset => break PullLink::implementation(&link)?,
            }
        };
        stages.reverse();
        for (number, stage) in stages.iter().enumerate() {
            if let Some(link) = &stage.link {
                link.get().claimed_by(py, &claim, number + 1);
            }
        }
        // What is above a stage that is done has no more to give.
        let ending = stages
            .iter()
            .rposition(|stage| stage.kernel.is_done(py))
            .map(|number| number + 1);
        // What came back to such a stage goes on all the same.
        let loaded: Vec<usize> = (ending.map_or(0, |number| number - 1)..stages.len())
            .filter(|number| stages[*number].link(tail).is_loaded(py))
            .collect();
        let head_is_loaded = is_fused && ending.is_none() && link.get().is_loaded(py);
        let is_special = ending.is_some() || head_is_loaded || !loaded.is_empty();
        Ok(Self {
            feed,
            stages,
            claim,
            head: (is_fused && !link.is(tail)).then(|| link.unbind()),
            head_is_loaded,
            loaded,
            handing: None,
            ending,
            is_special,
        })
    }

    /// Runs until there is an item, the end, a suspension or an error; from `entry`, or from what
    /// is next.
    #[inline]
    pub(crate) fn advance<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PullLink>,
        mut entry: Option<Entry<'py>>,
    ) -> Result<Advance<'py>, RaisedError> {
        'items: loop {
            if entry.is_none() && self.must_look_around() {
                match self.ahead(py, tail)? {
                    Ahead::Entry(next) => entry = Some(next),
                    Ahead::Feed => {}
                    Ahead::Outcome(outcome) => return Ok(outcome),
                }
            }
            let (mut item, mut number) = if let Some(entry) = entry.take() {
                entry
            } else {
                self.claim.at.store(0, Relaxed);
                if yield_budget::spend(py) {
                    return Ok(Self::rest(py));
                }
                match self.feed.ready(py) {
                    Some(item) => (item, 0),
                    None => match self.feed.poll_next(py) {
                        Ok(SourcePoll::Item(item)) => (item, 0),
                        drawn => match self.drew(py, drawn)? {
                            Ahead::Entry(entry) => entry,
                            Ahead::Feed => continue 'items,
                            Ahead::Outcome(outcome) => return Ok(outcome),
                        },
                    },
                }
            };
            while let Some(stage) = self.stages.get(number) {
                self.claim.at.store(number + 1, Relaxed);
                let flow = match stage.kernel.process(&item) {
                    Ok(Output::Emit(output)) => {
                        item = output;
                        number += 1;
                        continue;
                    }
                    Ok(Output::Skip) => continue 'items,
                    Ok(Output::Await(awaitable)) => self.begin(tail, number, &item, awaitable),
                    Ok(flow) => Ok(Begun::Went(self.turn(tail, number, flow))),
                    Err(raised) => Err(stage.blame(tail, raised.fetch(py))),
                };
                match flow {
                    Ok(Begun::Went(Some(output))) => {
                        item = output;
                        number += 1;
                    }
                    Ok(Begun::Went(None)) => continue 'items,
                    Ok(Begun::Suspended(suspended)) => return Ok(Advance::Suspend(suspended)),
                    Err(error) => (item, number) = self.catch(py, error, number + 1)?,
                }
            }
            return Ok(Advance::Item(item));
        }
    }

    /// What asking the feed came to, if that is no item.
    #[cold]
    #[inline(never)]
    fn drew<'py>(
        &mut self,
        py: Python<'py>,
        drawn: PyResult<SourcePoll<'py>>,
    ) -> Result<Ahead<'py>, RaisedError> {
        match drawn {
            Ok(SourcePoll::Item(item)) => Ok(Ahead::Entry((item, 0))),
            Ok(SourcePoll::End) => {
                self.end_above(0);
                Ok(Ahead::Feed)
            }
            Ok(SourcePoll::Wait(wait, object)) => {
                Ok(Ahead::Outcome(Self::wait(*wait, None, object)))
            }
            Err(error) => self.catch(py, error, 0).map(Ahead::Entry),
        }
    }

    /// What goes before the feed's next item.
    #[inline(never)]
    fn ahead<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PullLink>,
    ) -> Result<Ahead<'py>, RaisedError> {
        match self.hand_on(py) {
            Some(ahead) => Ok(ahead),
            None => RaisedError::set_from(py, self.look_around(py, tail)),
        }
    }

    /// An error that comes into stage `from`: it goes to the first stage from there on that catches it.
    #[cold]
    #[inline(never)]
    pub(super) fn catch<'py>(
        &self,
        py: Python<'py>,
        error: PyErr,
        from: usize,
    ) -> Result<Entry<'py>, RaisedError> {
        let catching =
            (from..self.stages.len()).find(|number| self.stages[*number].kernel.catches());
        match catching {
            Some(number) if error.is_instance_of::<PyException>(py) => {
                RaisedError::set_from(py, Caught::of(py, error).map(|caught| (caught, number)))
            }
            _ => Err(RaisedError::set(py, error)),
        }
    }

    /// What a kernel wants besides emitting or skipping.
    #[cold]
    fn turn<'py>(
        &mut self,
        tail: &Bound<'py, PullLink>,
        number: usize,
        flow: Output<'py>,
    ) -> Option<Bound<'py, PyAny>> {
        match flow {
            Output::Emit(output) => Some(output),
            Output::Skip => None,
            Output::Last(output) => {
                self.end_above(number + 1);
                Some(output)
            }
            Output::Stop => {
                self.end_above(number + 1);
                None
            }
            Output::Many(feed) => {
                self.stages[number]
                    .link(tail)
                    .set_pending(tail.py(), Some(*feed));
                self.load(number);
                None
            }
            Output::Await(_) => unreachable!("a kernel awaits once an item"),
        }
    }

    /// Nothing more is taken from above stage `number`: what is left there is left.
    pub(super) fn end_above(&mut self, number: usize) {
        self.loaded.retain(|stage| *stage >= number);
        self.handing = None;
        self.ending = Some(number);
        self.is_special = true;
    }

    /// Items came back to its last link.
    pub(super) fn load_tail(&mut self) {
        match self.stages.len() {
            0 => {
                self.head_is_loaded = true;
                self.is_special = true;
            }
            count => self.load(count - 1),
        }
    }

    /// The link of stage `number` has something that goes before what comes from above.
    pub(super) fn load(&mut self, number: usize) {
        self.loaded.push(number);
        self.handing = None;
        self.is_special = true;
    }

    /// The downmost link of those has nothing left.
    fn unload(&mut self) {
        self.loaded.pop();
        self.handing = None;
    }

    /// Whether something has to be seen to before the next item is drawn.
    #[inline]
    fn must_look_around(&self) -> bool {
        self.is_special || self.claim.revoked.load(Relaxed)
    }

    /// The next item of what is being handed on, if it is there at once. If not, that is asked why
    /// ([`AnySource::poll_next`]) by `look_around`.
    #[inline]
    fn hand_on<'py>(&self, py: Python<'py>) -> Option<Ahead<'py>> {
        let (number, feed) = self.handing.as_ref()?;
        if self.claim.revoked.load(Relaxed) {
            return None;
        }
        self.claim.at.store(number + 1, Relaxed);
        if yield_budget::spend(py) {
            return Some(Ahead::Outcome(Self::rest(py)));
        }
        let item = feed.ready(py)?;
        Some(Ahead::Entry((item, number + 1)))
    }

    /// Builds the line again if a link was taken out of it; finds what goes before the feed's next
    /// item: what is left in the links, from the consumer upwards, then what flushing gives.
    #[cold]
    fn look_around<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PullLink>,
    ) -> PyResult<Ahead<'py>> {
        if self.claim.revoked.load(Relaxed) {
            // An end that the feed told of it tells again; a kernel's own is found by `build`.
            *self = Self::build(tail)?;
        }
        while let Some(&number) = self.loaded.last() {
            let link = self.stages[number].link(tail);
            if let Some(item) = link.take_returned(py) {
                return Ok(Ahead::Entry((item, number + 1)));
            }
            if let Some(item) = link.take_kept(py) {
                if !link.is_loaded(py) {
                    self.unload();
                    self.is_special =
                        self.head_is_loaded || !self.loaded.is_empty() || self.ending.is_some();
                }
                return Ok(Ahead::Entry((item, number)));
            }
            let Some(pending) = link.pending(py) else {
                self.unload();
                continue;
            };
            if self.handing.is_none() {
                self.handing = Some((number, pending.clone_ref(py)));
                if let Some(ahead) = self.hand_on(py) {
                    return Ok(ahead);
                }
            }
            // It had none at once.
            self.handing = None;
            match pending.poll_next(py) {
                Ok(SourcePoll::Item(item)) => return Ok(Ahead::Entry((item, number + 1))),
                Ok(SourcePoll::Wait(wait, object)) => {
                    return Ok(Ahead::Outcome(Self::wait(*wait, Some(number), object)));
                }
                Ok(SourcePoll::End) => {
                    self.stages[number].link(tail).set_pending(py, None);
                    self.unload();
                }
                Err(error) => {
                    let error = self.stages[number].blame(tail, error);
                    return self
                        .catch(py, error, number + 1)
                        .map(Ahead::Entry)
                        .map_err(|raised| raised.fetch(py));
                }
            }
        }
        if self.head_is_loaded {
            let head = self.head.as_ref().map_or_else(|| tail.get(), Py::get);
            if let Some(item) = head.take_returned(py) {
                return Ok(Ahead::Entry((item, 0)));
            }
            self.head_is_loaded = false;
        }
        let Some(from) = self.ending else {
            self.is_special = false;
            return Ok(Ahead::Feed);
        };
        if yield_budget::spend(py) {
            return Ok(Ahead::Outcome(Self::rest(py)));
        }
        for number in from..self.stages.len() {
            if let Some(item) = self.stages[number].kernel.flush(py) {
                // It may have more.
                self.ending = Some(number);
                return Ok(Ahead::Entry((item, number + 1)));
            }
        }
        self.ending = Some(self.stages.len());
        Ok(Ahead::Outcome(Advance::End))
    }

    #[cold]
    fn rest(py: Python<'_>) -> Advance<'_> {
        Suspended::at(Place::Rest, py.None().into_bound(py))
    }

    #[cold]
    pub(super) fn wait(wait: Wait, stage: Option<usize>, object: Bound<'_, PyAny>) -> Advance<'_> {
        Suspended::at(Place::Draw(wait, stage), object)
    }

    /// Awaits what a callable returned, as far as it goes without suspending.
    #[inline(never)]
    fn begin<'py>(
        &mut self,
        tail: &Bound<'py, PullLink>,
        number: usize,
        item: &Bound<'py, PyAny>,
        awaitable: Bound<'py, PyAny>,
    ) -> PyResult<Begun<'py>> {
        let py = tail.py();
        let inner = Inner::of(awaitable).map_err(|error| self.stages[number].blame(tail, error))?;
        let step = inner.send(&py.None().into_bound(py));
        self.went(tail, number, item, inner, step)
    }

    /// What a step of a callable's awaitable came to.
    pub(super) fn went<'py>(
        &mut self,
        tail: &Bound<'py, PullLink>,
        number: usize,
        item: &Bound<'py, PyAny>,
        inner: Inner,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Begun<'py>> {
        let stage = &self.stages[number];
        let result = match step {
            Ok(Step::Return(result)) => result,
            Ok(Step::Yield(object)) => {
                let place = Place::Stage {
                    inner,
                    item: item.clone().unbind(),
                    stage: number,
                };
                return Ok(Begun::Suspended(Box::new(Suspended { place, object })));
            }
            Err(error) => return Err(stage.blame(tail, error)),
        };
        match stage.kernel.resume(item, result) {
            Ok(flow) => Ok(Begun::Went(self.turn(tail, number, flow))),
            Err(error) => Err(stage.blame(tail, error)),
        }
    }

    /// Whether a link in its middle closes.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.claim.interrupted.load(Relaxed)
    }

    /// No pull is under way any more.
    #[inline]
    pub(crate) fn settle(&self, py: Python<'_>) {
        self.claim.settle(py, Claim::IDLE);
    }
}

traverse!(Line { feed, head, stages });
traverse!(Stage { link, kernel });

impl Drop for Line {
    fn drop(&mut self) {
        // Dropped with its link or by a step, on an attached thread: this costs a counter.
        Python::attach(|py| self.claim.settle(py, Claim::GONE));
    }
}

/// What goes before the feed's next item.
enum Ahead<'py> {
    Entry(Entry<'py>),
    /// Nothing does.
    Feed,
    Outcome(Advance<'py>),
}

/// What became of an item that a callable wanted to await something for.
pub(super) enum Begun<'py> {
    /// It went through; `None` if it was dropped there.
    Went(Option<Bound<'py, PyAny>>),
    Suspended(Box<Suspended<'py>>),
}

impl Stage {
    /// The link, whose place in a line this is.
    #[inline]
    pub(super) fn link<'a>(&'a self, tail: &'a Bound<'_, PullLink>) -> &'a PullLink {
        self.link.as_ref().map_or_else(|| tail.get(), Py::get)
    }

    #[cold]
    pub(super) fn blame(&self, tail: &Bound<'_, PullLink>, error: PyErr) -> PyErr {
        let py = tail.py();
        if let Some(label) = self.link(tail).label {
            return errors::from_callable(py, error, label.operator, label.parameter);
        }
        let operator = self
            .link
            .as_ref()
            .map_or_else(|| tail.get_type(), |link| link.bind(py).get_type());
        let operator = operator
            .name()
            .map_or_else(|_| "a stream".to_owned(), |name| name.to_string());
        errors::from_callable(py, error, &operator, self.kernel.parameter())
    }
}
