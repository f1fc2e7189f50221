//! Kernels: the logic of one operator.
//!
//! A kernel is a small state machine: item in, zero or more items out, and a flush at the end. It
//! does not know whether items are pulled or pushed, nor which stages are before and after it, so each
//! operator is written once. Two drivers run kernels:
//!
//! * The **pull** driver ([`crate::pull`]) runs them on demand. One loop takes an item from the source,
//!   passes it to one kernel after another and returns the result of the last.
//! * The **push** driver ([`crate::push`]) runs the same kernels on supply.
//!
//! Either driver *fuses* adjacent stock links: one Rust loop with one call into Python per user
//! callable, no coroutine per stage and no recursion, so a pipeline of 10,000 links runs. The drivers
//! also await the result of a callable, keep the item of a cancelled pull, and name the operator in an
//! error. Both spend from one [yield budget](crate::runtime::yield_budget), so that a stream of ready
//! items still yields to the event loop.
//!
//! A kernel owns its configuration (`transform`, `predicate`) and its state. Both are live: a driver
//! reads them for each item and caches nothing.
//!
//! To add one: a file here with a `#[pyclass]` and its [`Kernel`]; its name in `kernels!` below;
//! its stub in `_core.pyi`; its two classes in `python/headrace/pull/transform.py` and
//! `push/transform.py`.

mod batch_until;
mod callable;
mod callback;
mod catch;
mod dedupe;
mod filter;
mod flat_map;
mod flatten;
mod in_order;
mod map;
mod pending_batch;
mod reduce;
mod skip;
mod take;
mod take_while;
mod window;

use pyo3::prelude::*;

use crate::errors::Raised;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::source::AnyFeed;
pub(crate) use callable::{Callable, call_one};
pub(crate) use catch::Caught;
pub(crate) use map::MapKernel;
pub(crate) use reduce::ReduceKernel;

/// What becomes of an item that went into a kernel.
#[derive(Debug)]
pub(crate) enum Flow<'py> {
    /// This goes on to the next stage.
    Emit(Bound<'py, PyAny>),
    /// This goes on, and it is the last: nothing more is taken from above.
    Last(Bound<'py, PyAny>),
    /// Nothing comes out for this item.
    Skip,
    /// Nothing comes out for this item, and nothing more is taken from above.
    Stop,
    /// The items of this iterable, sync or async, go on one by one, as they are asked for. Boxed, so
    /// that what becomes of an item fits two registers.
    Many(Box<AnyFeed>),
    /// The callable returned this awaitable: await it, then call [`Kernel::resume`] with its
    /// result.
    Await(Bound<'py, PyAny>),
}

/// One operator's work on one item.
pub(crate) trait Kernel: Traverse {
    /// The parameter that holds the callable, for the note on an error that it raises.
    const PARAMETER: &'static str;

    /// Whether errors from above go into it, each as a [`Caught`].
    const CATCHES: bool = false;

    /// An item goes in. An error is the callable's own; the driver adds the operator to it.
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised>;

    /// The awaitable that [`Flow::Await`] gave for `item` came to `result`.
    fn resume<'py>(
        &self,
        _item: &Bound<'py, PyAny>,
        _result: Bound<'py, PyAny>,
    ) -> PyResult<Flow<'py>> {
        unreachable!("this kernel awaits nothing")
    }

    /// Whether nothing is to be taken from above, before or after the first item.
    fn is_done(&self, _py: Python<'_>) -> bool {
        false
    }

    /// Nothing more comes from above: what it still holds comes out, one by one. It is asked until it
    /// has nothing.
    fn flush<'py>(&self, _py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        None
    }

    /// A new cycle begins: state goes back to what it was at first.
    fn restart(&self, _py: Python<'_>) {}
}

impl Traverse for AnyKernel {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(self.as_any())
    }
}

/// Declares the kernels: the enum by which a driver holds one of them, and their registration.
macro_rules! kernels {
    ($($name:ident($class:ty)),+ $(,)?) => {
        /// Any kernel. An enum rather than a trait object, so that the driver's loop is one jump
        /// and the kernel's code inlined.
        #[derive(Debug)]
        pub(crate) enum AnyKernel {
            $(#[doc = stringify!($name)] $name(Py<$class>),)+
        }

        impl AnyKernel {
            pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
                $(if let Ok(kernel) = object.cast_exact::<$class>() {
                    return Ok(Self::$name(kernel.clone().unbind()));
                })+
                Err(crate::errors::wrong_type("kernel", "a kernel of headrace", object))
            }

            pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
                match self { $(Self::$name(kernel) => Self::$name(kernel.clone_ref(py)),)+ }
            }

            // `map` and `filter` are a part of the driver's loop; the others are called from there.
            #[inline(always)]
            pub(crate) fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
                match self { $(Self::$name(kernel) => kernel.get().feed(item),)+ }
            }

            pub(crate) fn resume<'py>(&self, item: &Bound<'py, PyAny>, result: Bound<'py, PyAny>) -> PyResult<Flow<'py>> {
                match self { $(Self::$name(kernel) => kernel.get().resume(item, result),)+ }
            }

            pub(crate) fn is_done(&self, py: Python<'_>) -> bool {
                match self { $(Self::$name(kernel) => kernel.get().is_done(py),)+ }
            }

            pub(crate) fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
                match self { $(Self::$name(kernel) => kernel.get().flush(py),)+ }
            }

            /// Whether errors from above go into it, each as a [`Caught`].
            pub(crate) fn catches(&self) -> bool {
                match self { $(Self::$name(_) => <$class as Kernel>::CATCHES,)+ }
            }

            pub(crate) fn restart(&self, py: Python<'_>) {
                match self { $(Self::$name(kernel) => kernel.get().restart(py),)+ }
            }

            pub(crate) fn parameter(&self) -> &'static str {
                match self { $(Self::$name(_) => <$class as Kernel>::PARAMETER,)+ }
            }

            pub(crate) fn as_any(&self) -> &Py<PyAny> {
                match self { $(Self::$name(kernel) => kernel.as_any(),)+ }
            }
        }

        /// Adds the kernels to the module.
        pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_class::<$class>()?;)+
            Ok(())
        }
    };
}

kernels! {
    Map(MapKernel),
    Filter(filter::FilterKernel),
    Reduce(ReduceKernel),
    Dedupe(dedupe::DedupeKernel),
    FlatMap(flat_map::FlatMapKernel),
    Flatten(flatten::FlattenKernel),
    Window(window::WindowKernel),
    Take(take::TakeKernel),
    Skip(skip::SkipKernel),
    While(take_while::WhileKernel),
    Buffer(batch_until::BufferKernel),
    Callback(callback::CallbackKernel),
    InOrder(in_order::InOrderKernel),
    Catch(catch::CatchKernel),
}
