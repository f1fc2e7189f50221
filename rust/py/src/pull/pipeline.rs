//! `Pipeline`: a fused stretch of pull links, and the loop that runs it. `Pull` (`awaitable.rs`, `start.rs`) runs it.
//!
//! A pipeline is built at the first pull of a link, its *tail*. It extends from the tail upstream
//! as long as the links are stock and have one consumer. The first link that does not qualify (a
//! subclass that overrides the protocol, or a link with two consumers) becomes the pipeline's
//! foreign source.
//!
//! **The pipeline is a cache.** State that must survive lives in the links: the state of each
//! kernel, and the items that cancelled pulls left. So a pipeline can be dropped and rebuilt
//! between any two items. This happens when a link in its middle is pulled directly: the pipeline's
//! [`FusionGuard`] is revoked, and from its next item on the pipeline ends before that link.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::fusion::FusionGuard;
use super::link::PyPullLink;
use super::pending::NextInput;
use super::state::Origin;
use super::suspended::SuspendPoint;
use crate::coroutine::{Inner, Step};
use crate::errors;
use crate::errors::RaisedError;
use crate::kernel::{AnyKernel, Output, PyCaught};
use crate::object::failed_item::PyFailedItem;
use crate::object::gc::traverse;
use crate::runtime::yield_budget;
use crate::source::{AnySource, PyAsyncIterSource, SourcePoll, Wait};

/// One link of a pipeline, with its kernel.
#[derive(Debug)]
pub(super) struct Stage {
    /// `None` for the tail. The tail owns the pipeline, so a reference back would be a cycle.
    link: Option<Py<PyPullLink>>,
    pub(super) kernel: AnyKernel,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(super) source: AnySource,
    /// In the order in which an item passes through them.
    pub(super) stages: Vec<Stage>,
    pub(super) guard: Arc<FusionGuard>,
    /// Indexes of the stages whose links hold items that precede the source's next item: items that
    /// a cancelled pull left, items that were handed back, or an open inner source. The stage
    /// nearest to the source is first.
    pub(super) pending_stages: Vec<usize>,
    /// The last of these stages and its inner source. While that source has ready items, nothing
    /// else needs to be checked.
    pub(super) current_inner: Option<(usize, AnySource)>,
    /// The link that owns the source, unless that is the tail.
    pub(super) head: Option<Py<PyPullLink>>,
    /// Items were handed back to that link.
    pub(super) head_has_returned: bool,
    /// The source and all stages before this index have ended. Stages from this index on are still
    /// to be flushed.
    pub(super) ending: Option<usize>,
    /// Whether any of the fields above means that the next item does not come from the source.
    pub(super) is_special: bool,
}

/// The result of running a pipeline.
#[derive(Debug)]
pub(crate) enum Advance<'py> {
    Item(Bound<'py, PyAny>),
    End,
    /// The pull is suspended. Boxed, so that a ready item is not moved in the size of a suspension.
    Suspend(Box<Suspension<'py>>),
}

/// The point where a pull is suspended, and the object to yield to its task.
#[derive(Debug)]
pub(crate) struct Suspension<'py> {
    pub(crate) point: SuspendPoint,
    pub(crate) object: Bound<'py, PyAny>,
}

impl<'py> Suspension<'py> {
    fn at(point: SuspendPoint, object: Bound<'py, PyAny>) -> Advance<'py> {
        Advance::Suspend(Box::new(Self { point, object }))
    }
}

/// An item, and the index of the stage that it enters next.
pub(super) type Entry<'py> = (Bound<'py, PyAny>, usize);

impl Pipeline {
    /// Build the pipeline that ends in this link.
    pub(crate) fn build(tail: &Bound<'_, PyPullLink>) -> PyResult<Self> {
        let py = tail.py();
        let guard = FusionGuard::of(tail)?;
        let mut stages = Vec::new();
        let mut link = tail.clone();
        let mut is_fused = true;
        let source = loop {
            if PyPullLink::has_implementation(&link)? {
                break PyPullLink::implementation(&link)?;
            }
            match link.get().origin(py) {
                Origin::Source(source) => {
                    if !link.is(tail) {
                        link.get().set_fused_into(py, &guard, 0);
                    }
                    break source;
                }
                Origin::Stage { source, kernel } => {
                    let source = source.bind(py).clone();
                    stages.push(Stage {
                        link: (!link.is(tail)).then(|| link.clone().unbind()),
                        kernel,
                    });
                    if !PyPullLink::can_fuse(&source)? {
                        is_fused = false;
                        let foreign = PyAsyncIterSource::over(source.as_any());
                        break AnySource::AsyncIter(Py::new(py, foreign)?);
                    }
                    link = source;
                }
                Origin::Unset => break PyPullLink::implementation(&link)?,
            }
        };
        stages.reverse();
        for (index, stage) in stages.iter().enumerate() {
            if let Some(link) = &stage.link {
                link.get().set_fused_into(py, &guard, index + 1);
            }
        }
        // A stage that is done takes nothing more from upstream.
        let ending = stages
            .iter()
            .rposition(|stage| stage.kernel.is_done(py))
            .map(|index| index + 1);
        // Items that were left in such a stage are still delivered.
        let pending_stages: Vec<usize> = (ending.map_or(0, |index| index - 1)..stages.len())
            .filter(|index| stages[*index].link(tail).has_pending(py))
            .collect();
        let head_has_returned = is_fused && ending.is_none() && link.get().has_pending(py);
        let is_special = ending.is_some() || head_has_returned || !pending_stages.is_empty();
        Ok(Self {
            source,
            stages,
            guard,
            head: (is_fused && !link.is(tail)).then(|| link.unbind()),
            head_has_returned,
            pending_stages,
            current_inner: None,
            ending,
            is_special,
        })
    }

    /// Run until there is an item, the end, a suspension or an error. Start with `entry`, or with
    /// the next input.
    #[inline]
    pub(crate) fn advance<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PyPullLink>,
        mut entry: Option<Entry<'py>>,
    ) -> Result<Advance<'py>, RaisedError> {
        'items: loop {
            if entry.is_none() && self.has_pending() {
                match self.next_input(py, tail)? {
                    NextInput::Entry(next) => entry = Some(next),
                    NextInput::Source => {}
                    NextInput::Outcome(outcome) => return Ok(outcome),
                }
            }
            let (mut item, mut index) = if let Some(entry) = entry.take() {
                entry
            } else {
                self.guard.at.store(0, Relaxed);
                if yield_budget::spend(py) {
                    return Ok(Self::yield_now(py));
                }
                match self.source.ready(py) {
                    Some(item) => (item, 0),
                    None => match self.source.poll_next(py) {
                        Ok(SourcePoll::Item(item)) => (item, 0),
                        drawn => match self.on_source(py, drawn)? {
                            NextInput::Entry(entry) => entry,
                            NextInput::Source => continue 'items,
                            NextInput::Outcome(outcome) => return Ok(outcome),
                        },
                    },
                }
            };
            while let Some(stage) = self.stages.get(index) {
                self.guard.at.store(index + 1, Relaxed);
                let flow = match stage.kernel.process(&item) {
                    Ok(Output::Emit(output)) => {
                        item = output;
                        index += 1;
                        continue;
                    }
                    Ok(Output::Skip) => continue 'items,
                    Ok(Output::Await(awaitable)) => self.begin_await(tail, index, &item, awaitable),
                    Ok(flow) => Ok(Awaited::Done(self.on_output(tail, index, flow))),
                    Err(raised) => Err(stage.annotate(tail, raised.fetch(py), Some(&item))),
                };
                match flow {
                    Ok(Awaited::Done(Some(output))) => {
                        item = output;
                        index += 1;
                    }
                    Ok(Awaited::Done(None)) => continue 'items,
                    Ok(Awaited::Suspended(suspended)) => return Ok(Advance::Suspend(suspended)),
                    Err(error) => (item, index) = self.route_error(py, error, index + 1)?,
                }
            }
            return Ok(Advance::Item(item));
        }
    }

    /// Handle a result of the source other than a ready item.
    #[cold]
    #[inline(never)]
    fn on_source<'py>(
        &mut self,
        py: Python<'py>,
        drawn: PyResult<SourcePoll<'py>>,
    ) -> Result<NextInput<'py>, RaisedError> {
        match drawn {
            Ok(SourcePoll::Item(item)) => Ok(NextInput::Entry((item, 0))),
            Ok(SourcePoll::End) => {
                self.end_upstream_of(0);
                Ok(NextInput::Source)
            }
            Ok(SourcePoll::Wait(wait, object)) => {
                Ok(NextInput::Outcome(Self::wait(*wait, 0, object)))
            }
            Err(error) => self.route_error(py, error, 0).map(NextInput::Entry),
        }
    }

    /// Pass an error to the first stage from index `from` on that catches errors, or return it.
    #[cold]
    #[inline(never)]
    pub(super) fn route_error<'py>(
        &self,
        py: Python<'py>,
        error: PyErr,
        from: usize,
    ) -> Result<Entry<'py>, RaisedError> {
        let catching = (from..self.stages.len()).find(|index| self.stages[*index].kernel.catches());
        match catching {
            Some(index) if error.is_instance_of::<PyException>(py) => {
                RaisedError::set_from(py, PyCaught::of(py, error).map(|caught| (caught, index)))
            }
            _ => Err(RaisedError::set(py, error)),
        }
    }

    /// Handle a kernel's output other than `Emit` and `Skip`.
    #[cold]
    fn on_output<'py>(
        &mut self,
        tail: &Bound<'py, PyPullLink>,
        index: usize,
        flow: Output<'py>,
    ) -> Option<Bound<'py, PyAny>> {
        match flow {
            Output::Emit(output) => Some(output),
            Output::Skip => None,
            Output::Last(output) => {
                self.end_upstream_of(index + 1);
                Some(output)
            }
            Output::Stop => {
                self.end_upstream_of(index + 1);
                None
            }
            Output::Many(source) => {
                self.stages[index]
                    .link(tail)
                    .set_inner_source(tail.py(), Some(*source));
                self.add_pending(index);
                None
            }
            Output::Await(_) => unreachable!("a kernel awaits once an item"),
        }
    }

    /// Take nothing more from upstream of stage `index`. Items that are still there stay there.
    pub(super) fn end_upstream_of(&mut self, index: usize) {
        self.pending_stages.retain(|stage| *stage >= index);
        self.current_inner = None;
        self.ending = Some(index);
        self.is_special = true;
    }

    #[cold]
    pub(super) fn yield_now(py: Python<'_>) -> Advance<'_> {
        Suspension::at(SuspendPoint::Yield, py.None().into_bound(py))
    }

    #[cold]
    pub(super) fn wait(wait: Wait, entry: usize, object: Bound<'_, PyAny>) -> Advance<'_> {
        Suspension::at(SuspendPoint::Source { wait, entry }, object)
    }

    /// Start to await the awaitable that a callable returned. Complete it here if it does not
    /// suspend.
    #[inline(never)]
    fn begin_await<'py>(
        &mut self,
        tail: &Bound<'py, PyPullLink>,
        index: usize,
        item: &Bound<'py, PyAny>,
        awaitable: Bound<'py, PyAny>,
    ) -> PyResult<Awaited<'py>> {
        let py = tail.py();
        let inner = Inner::of(awaitable)
            .map_err(|error| self.stages[index].annotate(tail, error, Some(item)))?;
        let step = inner.send(&py.None().into_bound(py));
        self.on_step(tail, index, item, inner, step)
    }

    /// Handle one step of a callable's awaitable.
    pub(super) fn on_step<'py>(
        &mut self,
        tail: &Bound<'py, PyPullLink>,
        index: usize,
        item: &Bound<'py, PyAny>,
        inner: Inner,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Awaited<'py>> {
        let stage = &self.stages[index];
        let result = match step {
            Ok(Step::Return(result)) => result,
            Ok(Step::Yield(object)) => {
                let point = SuspendPoint::Callable {
                    inner,
                    item: item.clone().unbind(),
                    stage: index,
                };
                return Ok(Awaited::Suspended(Box::new(Suspension { point, object })));
            }
            Err(error) => return Err(stage.annotate(tail, error, Some(item))),
        };
        match stage.kernel.resume(item, result) {
            Ok(flow) => Ok(Awaited::Done(self.on_output(tail, index, flow))),
            Err(error) => Err(stage.annotate(tail, error, Some(item))),
        }
    }

    /// Return whether a link in the middle of this pipeline is being closed.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.guard.interrupted.load(Relaxed)
    }

    /// Note that no pull is running or suspended in this pipeline.
    #[inline]
    pub(crate) fn set_idle(&self, py: Python<'_>) {
        self.guard.move_to(py, FusionGuard::IDLE);
    }
}

traverse!(Pipeline {
    source,
    head,
    stages
});
traverse!(Stage { link, kernel });

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Always on an attached thread, so attaching costs a counter.
        Python::attach(|py| self.guard.move_to(py, FusionGuard::GONE));
    }
}

/// The result of awaiting for an item.
pub(super) enum Awaited<'py> {
    /// Completed. `None` if the kernel dropped the item.
    Done(Option<Bound<'py, PyAny>>),
    Suspended(Box<Suspension<'py>>),
}

impl Stage {
    /// Return the link of this stage.
    #[inline]
    pub(super) fn link<'a>(&'a self, tail: &'a Bound<'_, PyPullLink>) -> &'a PyPullLink {
        self.link.as_ref().map_or_else(|| tail.get(), Py::get)
    }

    /// Prepare an error of this stage for the caller. `item` is the one that the stage was given, if it is known.
    #[cold]
    pub(super) fn annotate(
        &self,
        tail: &Bound<'_, PyPullLink>,
        error: PyErr,
        item: Option<&Bound<'_, PyAny>>,
    ) -> PyErr {
        let py = tail.py();
        let item = item.and_then(|item| match item.cast_exact::<PyCaught>() {
            Err(_) => Some(item.clone()),
            // The handler of a `catch` raised it, for the item of the error that it was given.
            Ok(caught) => caught.get().item(py),
        });
        let error = self.name_error(tail, error, item.as_ref());
        if let Some(item) = &item
            && error.is_instance_of::<PyException>(py)
        {
            PyFailedItem::attach(error.value(py), item);
        }
        error
    }

    fn name_error(
        &self,
        tail: &Bound<'_, PyPullLink>,
        error: PyErr,
        item: Option<&Bound<'_, PyAny>>,
    ) -> PyErr {
        let py = tail.py();
        if let Some(label) = self.link(tail).label {
            let callable = format!("{} of {}", label.parameter, label.operator);
            return errors::from_callable(py, error, &callable, item);
        }
        let operator = self
            .link
            .as_ref()
            .map_or_else(|| tail.get_type(), |link| link.bind(py).get_type());
        let operator = operator
            .name()
            .map_or_else(|_| "a stream".to_owned(), |name| name.to_string());
        let callable = format!("{} of {operator}", self.kernel.parameter());
        errors::from_callable(py, error, &callable, item)
    }
}
