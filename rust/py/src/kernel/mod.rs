//! Kernels: what an operator does with one item, whoever drives it.
//!
//! A kernel is a small state machine, "item in, zero or more items out". It knows neither whether
//! items are pulled or pushed nor what stands before and behind it, so that each operator is
//! written once. The drivers ([`crate::drive`]) do the rest: they fuse a line of links, find the
//! next item, await what a callable returned, keep an item whose pull was cancelled, and name the
//! operator in an error.
//!
//! A kernel owns its configuration (`transform`, `predicate`) and its state, and both are live:
//! what is set holds from the next item, because a driver asks the kernel for each item and caches
//! nothing.
//!
//! To add one: a file here with a `#[pyclass]` and its [`Kernel`]; its name in `kernels!` below;
//! its stub in `_core.pyi`; its two classes in `python/headrace/pull/transform.py` and
//! `push/transform.py`.

mod batch;
mod buffer_until;
mod callable;
mod callback;
mod catch;
mod dedupe;
mod filter;
mod flat_map;
mod flatten;
mod in_order;
mod map;
mod reduce;
mod skip;
mod take;
mod while_true;
mod window;

use pyo3::prelude::*;

use crate::awaitable::Stopped;
use crate::errors::Raised;
use crate::feed::AnyFeed;
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
pub(crate) trait Kernel {
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

    /// Shows the collector what this holds.
    fn traverse(
        &self,
        see: &mut dyn FnMut(&Py<PyAny>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped>;
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
    While(while_true::WhileKernel),
    Buffer(buffer_until::BufferKernel),
    Callback(callback::CallbackKernel),
    InOrder(in_order::InOrderKernel),
    Catch(catch::CatchKernel),
}
