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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::feed::{AnyFeed, Drawn, ForeignFeed, Wait};
use super::flight::Place;
use super::link::{Origin, PullLink};
use crate::awaitable::{Inner, Seen, Step, Stopped};
use crate::drive::budget;
use crate::errors::{self, Raised};
use crate::gil::GilCell;
use crate::kernel::{AnyKernel, Flow};

/// A line's hold on the links that it runs.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The link that the line ends in, and belongs to.
    tail: Py<PyWeakrefReference>,
    revoked: AtomicBool,
    /// A link in its middle closes: the pull that is inside it is to come out.
    interrupted: AtomicBool,
    /// Where the line is: [`Claim::IDLE`], 0 in its feed, `k + 1` in its stage `k`.
    at: AtomicUsize,
    /// Who waits until it is idle.
    waiting: GilCell<Vec<Waker>>,
}

impl Claim {
    /// No pull is under way.
    const IDLE: usize = usize::MAX - 1;
    /// The line is gone.
    const GONE: usize = usize::MAX;

    /// Whether there is still a line behind it.
    pub(crate) fn is_alive(&self) -> bool {
        self.at.load(Relaxed) != Self::GONE
    }

    /// Takes the link at `position` away from the line. `false` if the line is in that link or
    /// above it just now; then `waker` is called when it no longer is.
    pub(crate) fn revoke(
        &self,
        py: Python<'_>,
        position: usize,
        waker: impl FnOnce() -> PyResult<Waker>,
    ) -> PyResult<bool> {
        // From its next item on the line looks for itself what it may run; what is under way stays
        // where it is.
        self.revoked.store(true, Relaxed);
        if self.at.load(Relaxed) > position {
            return Ok(true);
        }
        let waker = waker()?;
        self.waiting.borrow(py).push(waker);
        Ok(false)
    }

    /// Cancels the pull that is under way in the line, in its own task.
    pub(crate) fn interrupt(&self, py: Python<'_>) -> PyResult<()> {
        if self.interrupted.swap(true, Relaxed) {
            return Ok(());
        }
        let Some(tail) = self.tail.bind(py).upgrade() else {
            return Ok(());
        };
        tail.cast::<PullLink>()?.get().cancel_flight(py)
    }

    #[inline]
    fn settle(&self, py: Python<'_>, at: usize) {
        self.at.store(at, Relaxed);
        if self.revoked.load(Relaxed) {
            self.admit(py);
        }
    }

    #[cold]
    fn admit(&self, py: Python<'_>) {
        let waiting = std::mem::take(&mut *self.waiting.borrow(py));
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// One link of a line.
#[derive(Debug)]
struct Stage {
    /// `None` for the last one, which owns the line: it must not be kept alive by what it owns.
    link: Option<Py<PullLink>>,
    kernel: AnyKernel,
}

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct Line {
    feed: AnyFeed,
    /// From the source's side to the consumer's.
    stages: Vec<Stage>,
    claim: Arc<Claim>,
    /// The stage whose link keeps an item that a cancelled pull left.
    kept: Option<usize>,
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
type Entry<'py> = (Bound<'py, PyAny>, usize);

impl Line {
    /// Builds the line that ends in this link.
    pub(crate) fn build(tail: &Bound<'_, PullLink>) -> PyResult<Self> {
        let py = tail.py();
        let claim = Arc::new(Claim {
            tail: PyWeakrefReference::new(tail)?.unbind(),
            revoked: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            at: AtomicUsize::new(Claim::IDLE),
            waiting: GilCell::default(),
        });
        let mut stages = Vec::new();
        let mut link = tail.clone();
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
                    let source = source.into_bound(py);
                    stages.push(Stage {
                        link: (!link.is(tail)).then(|| link.unbind()),
                        kernel,
                    });
                    if !PullLink::can_fuse(&source)? {
                        let foreign = ForeignFeed::over(source.as_any());
                        break AnyFeed::Foreign(Py::new(py, foreign)?);
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
        let kept = stages.iter().rposition(|stage| stage.link(tail).keeps(py));
        Ok(Self {
            feed,
            stages,
            claim,
            kept,
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
    ) -> Result<Advance<'py>, Raised> {
        'items: loop {
            if entry.is_none() && self.must_look_around() {
                entry = self
                    .look_around(py, tail)
                    .map_err(|error| Raised::set(py, error))?;
            }
            let (mut item, mut number) = if let Some(entry) = entry.take() {
                entry
            } else {
                self.claim.at.store(0, Relaxed);
                if budget::spend(py) {
                    return Ok(Self::rest(py));
                }
                match self.feed.ready(py) {
                    Some(item) => (item, 0),
                    None => match self.feed.draw(py).map_err(|error| Raised::set(py, error))? {
                        Drawn::Item(item) => (item, 0),
                        Drawn::End => return Ok(Advance::End),
                        Drawn::Wait(wait, object) => return Ok(Self::wait(*wait, object)),
                    },
                }
            };
            while let Some(stage) = self.stages.get(number) {
                self.claim.at.store(number + 1, Relaxed);
                let flow = match stage.kernel.feed(&item) {
                    Ok(flow) => flow,
                    Err(raised) => {
                        return Err(Raised::set(py, stage.blame(tail, raised.fetch(py))));
                    }
                };
                match flow {
                    Flow::Emit(output) => {
                        item = output;
                        number += 1;
                    }
                    Flow::Skip => continue 'items,
                    Flow::Await(awaitable) => match self
                        .begin(tail, number, &item, awaitable)
                        .map_err(|error| Raised::set(py, error))?
                    {
                        Begun::Went(Some(output)) => {
                            item = output;
                            number += 1;
                        }
                        Begun::Went(None) => continue 'items,
                        Begun::Suspended(suspended) => return Ok(Advance::Suspend(suspended)),
                    },
                }
            }
            return Ok(Advance::Item(item));
        }
    }

    #[cold]
    fn rest(py: Python<'_>) -> Advance<'_> {
        Suspended::at(Place::Rest, py.None().into_bound(py))
    }

    #[cold]
    fn wait(wait: Wait, object: Bound<'_, PyAny>) -> Advance<'_> {
        Suspended::at(Place::Draw(wait), object)
    }

    /// Whether something has to be seen to before the next item is drawn.
    #[inline]
    fn must_look_around(&self) -> bool {
        self.kept.is_some() || self.claim.revoked.load(Relaxed)
    }

    /// Builds the line again if a link was taken out of it; gives the item that a cancelled pull
    /// left, if there is one.
    #[cold]
    fn look_around<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PullLink>,
    ) -> PyResult<Option<Entry<'py>>> {
        if self.claim.revoked.load(Relaxed) {
            *self = Self::build(tail)?;
        }
        let Some(number) = self.kept.take() else {
            return Ok(None);
        };
        Ok(self.stages[number]
            .link(tail)
            .take_kept(py)
            .map(|item| (item, number)))
    }

    /// Awaits what a callable returned, as far as it goes without suspending.
    #[inline(never)]
    fn begin<'py>(
        &self,
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
    fn went<'py>(
        &self,
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
            Ok(Flow::Emit(output)) => Ok(Begun::Went(Some(output))),
            Ok(Flow::Skip) => Ok(Begun::Went(None)),
            Ok(Flow::Await(_)) => unreachable!("a kernel awaits once an item"),
            Err(error) => Err(stage.blame(tail, error)),
        }
    }

    /// [`Self::advance`], where a result may be large.
    fn go_on<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PullLink>,
        entry: Option<Entry<'py>>,
    ) -> PyResult<Advance<'py>> {
        self.advance(py, tail, entry)
            .map_err(|raised| raised.fetch(py))
    }

    /// Goes on where a pull was suspended, with what its task sent or threw.
    ///
    /// `cancelled` says whether an error that comes out is a cancellation of this pull; it is asked
    /// only then.
    pub(crate) fn resume<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PullLink>,
        place: Place,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        cancelled: impl Fn(&PyErr) -> bool,
    ) -> PyResult<Advance<'py>> {
        match place {
            Place::Rest => {
                sent?;
                self.go_on(py, tail, None)
            }
            Place::Draw(wait) => {
                self.claim.at.store(0, Relaxed);
                match self.feed.resume(wait, sent, py) {
                    Ok(Drawn::Item(item)) => self.go_on(py, tail, Some((item, 0))),
                    Ok(Drawn::End) => Ok(Advance::End),
                    Ok(Drawn::Wait(wait, object)) => Ok(Self::wait(*wait, object)),
                    Err(error) => {
                        if cancelled(&error) {
                            self.feed.cancelled(py);
                        }
                        Err(error)
                    }
                }
            }
            Place::Stage {
                inner,
                item,
                stage: number,
            } => {
                self.claim.at.store(number + 1, Relaxed);
                // A `GeneratorExit` that is thrown in comes from `close()`: whoever pulled has
                // gone.
                let left = sent
                    .as_ref()
                    .err()
                    .is_some_and(|error| error.is_instance_of::<PyGeneratorExit>(py));
                let item = item.into_bound(py);
                let step = match sent {
                    Ok(value) => inner.send(value),
                    Err(error) => inner.throw(py, error),
                };
                if let Err(error) = &step
                    && (left || cancelled(error))
                {
                    self.keep(tail, number, item);
                    return Err(step.expect_err("it was matched as an error"));
                }
                let entry = match self.went(tail, number, &item, inner, step)? {
                    Begun::Went(Some(output)) => Some((output, number + 1)),
                    Begun::Went(None) => None,
                    Begun::Suspended(suspended) => return Ok(Advance::Suspend(suspended)),
                };
                self.go_on(py, tail, entry)
            }
        }
    }

    /// A pull that was suspended will never go on.
    pub(crate) fn abandon(&mut self, tail: &Bound<'_, PullLink>, place: Place) {
        let py = tail.py();
        match place {
            Place::Rest => {}
            Place::Draw(wait) => self.feed.abandon(py, wait),
            Place::Stage { inner, item, stage } => {
                // The item first: dropping the coroutine runs its `finally`.
                self.keep(tail, stage, item.into_bound(py));
                drop(inner);
            }
        }
    }

    fn keep(&mut self, tail: &Bound<'_, PullLink>, number: usize, item: Bound<'_, PyAny>) {
        self.stages[number].link(tail).keep(item);
        self.kept = Some(number);
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

    /// Shows the collector what this holds.
    pub(crate) fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        see(self.feed.as_any())?;
        for stage in &self.stages {
            if let Some(link) = &stage.link {
                see(link.as_any())?;
            }
            see(stage.kernel.as_any())?;
        }
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Dropped with its link or by a step, on an attached thread: this costs a counter.
        Python::attach(|py| self.claim.settle(py, Claim::GONE));
    }
}

/// What became of an item that a callable wanted to await something for.
enum Begun<'py> {
    /// It went through; `None` if it was dropped there.
    Went(Option<Bound<'py, PyAny>>),
    Suspended(Box<Suspended<'py>>),
}

impl Stage {
    /// The link, whose place in a line this is.
    #[inline]
    fn link<'a>(&'a self, tail: &'a Bound<'_, PullLink>) -> &'a PullLink {
        self.link.as_ref().map_or_else(|| tail.get(), Py::get)
    }

    #[cold]
    fn blame(&self, tail: &Bound<'_, PullLink>, error: PyErr) -> PyErr {
        let py = tail.py();
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
