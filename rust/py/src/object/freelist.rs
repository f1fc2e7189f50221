//! Objects that are made and dropped all the time: dead ones are kept, whole, and used again.
//!
//! `#[pyclass(freelist = N)]` keeps their memory, behind a lock of its own, and makes each of them anew through
//! `object.__new__`: 35 ns and more, for what takes 10 here. For that a class gives up being written once: what is in it
//! must be such that a dead object can be filled again through a shared reference.
//!
//! What is in such an object is the collector's to see only if the class has it [shown](show).
//!
//! Its deallocator is put in front of PyO3's, which is called for whatever is not to be used again.
//!
//! Replacing a deallocator and reviving an object is a [private layout](LAYOUT). The fallback leaves the class as it is: its bin
//! stays empty, and each object is a new one.

use std::cell::UnsafeCell;
use std::fmt::{self, Debug};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::{PyDict, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{Borrowed, PyClass, PyTraverseError, PyVisit};

use crate::runtime::private_layout::{self, Layout};

pub(crate) static LAYOUT: Layout = Layout::new("recycled_objects", self_test);

/// A class whose dead objects are used again. It is no base class.
pub(crate) trait Pooled: PyClass<Frozen = True> + Send + Sync {
    /// Where its dead objects are: a static of its own.
    fn free_list() -> &'static FreeList;

    /// The last reference is gone: lets go of what is in it and says true; or says false, and the object is dropped like any
    /// other. It runs no Python code, and does not panic: the Python objects that are in it it hands to `dropped`.
    fn recycle(&self, dropped: &mut Dropped) -> bool;
}

/// Python objects that go with the object that held them, once that is done with.
#[derive(Default)]
pub(crate) struct Dropped([Option<Py<PyAny>>; MOST_DROPPED]);

/// How many there may be.
const MOST_DROPPED: usize = 4;

impl Dropped {
    /// One that leaves, if it is one.
    #[inline]
    pub(crate) fn push(&mut self, object: Option<Py<PyAny>>) {
        if object.is_none() {
            return;
        }
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = object;
        }
    }

    /// Lets go of them.
    ///
    /// # Safety
    ///
    /// The GIL is held.
    #[inline]
    unsafe fn go(&mut self) {
        // Where they are: to copy what was just written stalls.
        for object in self.0.iter_mut().filter_map(Option::take) {
            // SAFETY: the caller's promise. Not by dropping it, which waits for another occasion where PyO3 does not know that
            // the GIL is held: in the slots of a type, say.
            unsafe { ffi::Py_DECREF(object.into_ptr()) };
        }
    }
}

/// What such an object is filled with, each time anew.
pub(crate) struct Filling<T>(UnsafeCell<T>);

// SAFETY: shared references to the value are given to whoever has the object, from any thread; it is written only while
// nobody else has it.
unsafe impl<T: Send + Sync> Sync for Filling<T> {}

impl<T> Filling<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> &T {
        // SAFETY: whoever has `self` has it from a reference to the object, and while there is one nothing is written.
        unsafe { &*self.0.get() }
    }

    /// # Safety
    ///
    /// Nobody else refers to the object: it was just taken out of its bin, or is about to go there.
    #[inline]
    #[expect(
        clippy::mut_from_ref,
        reason = "the caller's promise is that it is the only one"
    )]
    pub(crate) unsafe fn get_mut(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0.get() }
    }
}

impl<T: Debug> Debug for Filling<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// How many dead objects of a class are kept.
const KEPT: usize = 256;

/// The dead objects of a class.
pub(crate) struct FreeList(UnsafeCell<State>);

struct State {
    objects: [*mut ffi::PyObject; KEPT],
    kept: usize,
    /// PyO3's own.
    dealloc: Option<ffi::destructor>,
}

// SAFETY: read and written with the GIL held only, by the functions below, and no Python code runs between a read and its
// write. Builds without a GIL are refused in gil.rs.
unsafe impl Sync for FreeList {}

impl FreeList {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(State {
            objects: [ptr::null_mut(); KEPT],
            kept: 0,
            dealloc: None,
        }))
    }

    /// A dead object of the class, alive again, with what was left in it; `None` if there is none.
    ///
    /// `T` is the class that [registered](register) this bin.
    #[inline]
    pub(crate) fn take<'py, T: Pooled>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        // SAFETY: the GIL is held. What is in the bin are objects of this class that nothing refers to, with their contents
        // and their reference to the type.
        unsafe {
            let state = &mut *self.0.get();
            state.kept = state.kept.checked_sub(1)?;
            let object = state.objects[state.kept];
            // From none to one, as in coroutine/type_object.rs.
            ffi::Py_INCREF(object);
            Some(Bound::from_owned_ptr(py, object).cast_into_unchecked())
        }
    }
}

/// Has the collector see an object that was taken out of its bin, and has something in it that may be part of a cycle. Others
/// stay out of its sight.
#[inline]
pub(crate) fn show<T: Pooled>(object: &Bound<'_, T>) {
    // SAFETY: attached, and a whole object, which was taken out of its sight when it died.
    unsafe { ffi::PyObject_GC_Track(object.as_ptr().cast()) };
}

/// Keeps the dead objects of a class from now on, if they can be revived. Called once, when the module is made.
pub(crate) fn register<T: Pooled>(py: Python<'_>) -> PyResult<()> {
    if LAYOUT.is_used() && private_layout::has_known_struct(&T::type_object(py))? {
        replace_dealloc::<T>(py);
    }
    Ok(())
}

fn replace_dealloc<T: Pooled>(py: Python<'_>) {
    let class = T::type_object_raw(py);
    // SAFETY: the GIL is held, and there are no objects of the class yet. It is a heap type of our own that nobody
    // inherits the slot from.
    unsafe {
        let state = &mut *T::free_list().0.get();
        // Once, or it would call itself.
        if state.dealloc.is_none() {
            state.dealloc = (*class).tp_dealloc.replace(dealloc::<T>);
        }
    }
}

unsafe extern "C" fn dealloc<T: Pooled>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls this with the GIL held, when the last reference to an object of `T` is gone. Borrowed, for a
    // reference that is counted would bring us here again when it goes.
    unsafe {
        let state = T::free_list().0.get();
        let mut dropped = Dropped::default();
        let is_kept = (*state).kept < KEPT && !is_watched(object) && {
            let py = Python::assume_attached();
            let object = Borrowed::from_ptr(py, object).cast_unchecked::<T>();
            object.get().recycle(&mut dropped)
        };
        if is_kept {
            // PyO3's classes are the collector's to see, each. It must not come upon one that is dead: `gc.get_objects()`
            // would refer to it, and let it die again.
            ffi::PyObject_GC_UnTrack(object.cast());
            (*state).objects[(*state).kept] = object;
            (*state).kept += 1;
            // Last, since it may run Python code, which may even take this very object out of the bin.
            dropped.go();
        } else if let Some(dealloc) = (*state).dealloc {
            dealloc(object);
        }
    }
}

/// Whether there is a weak reference to it, of which PyO3's deallocator tells.
///
/// # Safety
///
/// A live object.
#[inline]
unsafe fn is_watched(object: *mut ffi::PyObject) -> bool {
    // SAFETY: where the type says that an object has its list of weak references, there it is, if it is in the object at all.
    unsafe {
        match (*ffi::Py_TYPE(object)).tp_weaklistoffset {
            0 => false,
            offset if offset > 0 => {
                let list = object.byte_offset(offset).cast::<*mut ffi::PyObject>();
                !(*list).is_null()
            }
            _ => true,
        }
    }
}

/// The class of the self-test.
#[pyclass(frozen, weakref, module = "headrace._core")]
struct Probe(Filling<Option<Py<PyAny>>>);

static PROBES: FreeList = FreeList::new();

impl Pooled for Probe {
    fn free_list() -> &'static FreeList {
        &PROBES
    }

    fn recycle(&self, dropped: &mut Dropped) -> bool {
        // SAFETY: the last reference to the object is gone.
        dropped.push(unsafe { self.0.get_mut() }.take());
        true
    }
}

#[pymethods]
impl Probe {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0
            .get()
            .as_ref()
            .map_or(Ok(()), |held| visit.call(held))
    }
}

fn self_test(py: Python<'_>) -> PyResult<bool> {
    let class = py.get_type::<Probe>();
    if !private_layout::has_known_struct(&class)? || private_layout::has_managed_fields(&class) {
        return Ok(false);
    }
    replace_dealloc::<Probe>(py);
    let held = PyDict::new(py).into_any();
    let fill = || Some(held.clone().unbind());
    // SAFETY: live objects, and the GIL is held.
    let (references, kept) =
        unsafe { (|| ffi::Py_REFCNT(class.as_ptr()), || (*PROBES.0.get()).kept) };
    let without = references();
    let first = Bound::new(py, Probe(Filling::new(fill())))?;
    let address = first.as_ptr();
    if kept() != 0 || references() != without + 1 || !private_layout::is_tracked(&first) {
        return Ok(false);
    }
    drop(first);
    for _ in 0..2 {
        // What it held is gone; its reference to its type is not.
        if kept() != 1 || references() != without + 1 || !private_layout::has_references(&held, 1) {
            return Ok(false);
        }
        let Some(revived) = PROBES.take::<Probe>(py) else {
            return Ok(false);
        };
        let is_new = ptr::eq(revived.as_ptr(), address)
            && kept() == 0
            && revived.get_type().is(&class)
            && private_layout::has_references(&revived, 1)
            && !private_layout::is_tracked(&revived)
            && revived.get().0.get().is_none();
        if !is_new {
            return Ok(false);
        }
        // SAFETY: nobody else has it yet.
        unsafe { *revived.get().0.get_mut() = fill() };
        show(&revived);
        if !private_layout::is_tracked(&revived) {
            return Ok(false);
        }
    }
    // An object to which a weak reference exists is deallocated by PyO3.
    let Some(revived) = PROBES.take::<Probe>(py) else {
        return Ok(false);
    };
    show(&revived);
    let reference = PyWeakrefReference::new(&revived)?;
    let is_alive = reference.upgrade().is_some_and(|alive| alive.is(&revived));
    drop(revived);
    Ok(is_alive && reference.upgrade().is_none() && kept() == 0 && references() == without)
}
