//! Free lists: dead objects of frequently used classes are kept and reused.
//! `PyLease` and the pool's `Envelope` use them.
//!
//! `#[pyclass(freelist = N)]` keeps only the memory, behind a lock, and creates each object through `object.__new__`. That takes at
//! least 35 ns, where a free list of this module takes 10. In return, the fields of such a class must be writable through a shared
//! reference ([`Filling`]), to fill a dead object again.
//!
//! The collector visits such an object only if its class [tracks](track) it.
//!
//! The deallocator of the free list replaces that of PyO3, and calls it for objects that are not kept.
//!
//! Replacing a deallocator and reviving an object is a [private layout](LAYOUT). The fallback leaves the class unchanged: its free
//! list stays empty, and each object is a new one.

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

/// A class whose dead objects are reused. It must not be a base class.
pub(crate) trait Pooled: PyClass<Frozen = True> + Send + Sync {
    /// Return the free list of the class, in a static of its own.
    fn free_list() -> &'static FreeList;

    /// Empty the object after its last reference was dropped, and return true; or return false to drop it like any
    /// other object. Must not run Python code and must not panic: it moves the Python objects of the fields to
    /// `dropped`.
    fn recycle(&self, dropped: &mut Dropped) -> bool;
}

/// Python objects to drop after the object that held them was recycled.
#[derive(Default)]
pub(crate) struct Dropped([Option<Py<PyAny>>; MOST_DROPPED]);

/// The most of them.
const MOST_DROPPED: usize = 4;

impl Dropped {
    /// Add an object, if there is one.
    #[inline]
    pub(crate) fn push(&mut self, object: Option<Py<PyAny>>) {
        if object.is_none() {
            return;
        }
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = object;
        }
    }

    /// Drop the objects.
    ///
    /// # Safety
    ///
    /// The GIL is held.
    #[inline]
    unsafe fn drop_all(&mut self) {
        // In place: copying values that were just written stalls the processor.
        for object in self.0.iter_mut().filter_map(Option::take) {
            // SAFETY: the caller's promise. Dropping the `Py` would be deferred in the slots of a type, where PyO3 does not know that
            // the GIL is held.
            unsafe { ffi::Py_DECREF(object.into_ptr()) };
        }
    }
}

/// The fields of a pooled object, which are replaced at each use.
pub(crate) struct Filling<T>(UnsafeCell<T>);

// SAFETY: holders of the object, on any thread, get shared references to the value. It is written only while there is no other
// reference to the object.
unsafe impl<T: Send + Sync> Sync for Filling<T> {}

impl<T> Filling<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> &T {
        // SAFETY: `self` comes from a reference to the object, and while one exists nothing is written.
        unsafe { &*self.0.get() }
    }

    /// # Safety
    ///
    /// There is no other reference to the object: it was just taken from its free list, or is about to be put there.
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

/// The most dead objects of a class that are kept.
const KEPT: usize = 256;

/// The dead objects of a class.
pub(crate) struct FreeList(UnsafeCell<State>);

struct State {
    objects: [*mut ffi::PyObject; KEPT],
    kept: usize,
    /// The deallocator of PyO3.
    dealloc: Option<ffi::destructor>,
}

// SAFETY: read and written with the GIL held only, by the functions below, and no Python code runs between a read and its
// write. Builds without a GIL are refused in gil_cell.rs.
unsafe impl Sync for FreeList {}

impl FreeList {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(State {
            objects: [ptr::null_mut(); KEPT],
            kept: 0,
            dealloc: None,
        }))
    }

    /// Revive a dead object of the class, with its old fields; `None` if there is none.
    ///
    /// `T` must be the class that [registered](register) this free list.
    #[inline]
    pub(crate) fn take<'py, T: Pooled>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        // SAFETY: the GIL is held. The list has objects of this class without references to them, with their fields and their
        // reference to the type.
        unsafe {
            let state = &mut *self.0.get();
            state.kept = state.kept.checked_sub(1)?;
            let object = state.objects[state.kept];
            // The count goes from 0 to 1, as in coroutine/type_object.rs.
            ffi::Py_INCREF(object);
            Some(Bound::from_owned_ptr(py, object).cast_into_unchecked())
        }
    }
}

/// Track an object from a free list in the garbage collector. Required if a field may be part of a reference cycle;
/// other objects stay untracked.
#[inline]
pub(crate) fn track<T: Pooled>(object: &Bound<'_, T>) {
    // SAFETY: attached, and a complete object, which was untracked when it died.
    unsafe { ffi::PyObject_GC_Track(object.as_ptr().cast()) };
}

/// Start to keep the dead objects of a class, if they can be revived. Called once, at import.
pub(crate) fn register<T: Pooled>(py: Python<'_>) -> PyResult<()> {
    if LAYOUT.is_used() && private_layout::has_known_struct(&T::type_object(py))? {
        replace_dealloc::<T>(py);
    }
    Ok(())
}

fn replace_dealloc<T: Pooled>(py: Python<'_>) {
    let class = T::type_object_raw(py);
    // SAFETY: the GIL is held, and there are no objects of the class yet. It is a heap type of this module without subclasses that
    // inherit the slot.
    unsafe {
        let state = &mut *T::free_list().0.get();
        // Only once: otherwise the deallocator would call itself.
        if state.dealloc.is_none() {
            state.dealloc = (*class).tp_dealloc.replace(dealloc::<T>);
        }
    }
}

unsafe extern "C" fn dealloc<T: Pooled>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls this with the GIL held, after the last reference to an object of `T` was dropped. The object is
    // borrowed, because dropping a counted reference would call this function again.
    unsafe {
        let state = T::free_list().0.get();
        let mut dropped = Dropped::default();
        let is_kept = (*state).kept < KEPT && !is_watched(object) && {
            let py = Python::assume_attached();
            let object = Borrowed::from_ptr(py, object).cast_unchecked::<T>();
            object.get().recycle(&mut dropped)
        };
        if is_kept {
            // The collector tracks every object of PyO3's classes. A dead one must be untracked: `gc.get_objects()` would create a
            // reference to it, and deallocate it again.
            ffi::PyObject_GC_UnTrack(object.cast());
            (*state).objects[(*state).kept] = object;
            (*state).kept += 1;
            // Last, because it may run Python code, which may take this very object from the free list.
            dropped.drop_all();
        } else if let Some(dealloc) = (*state).dealloc {
            dealloc(object);
        }
    }
}

/// Return whether there is a weak reference to the object, which only PyO3's deallocator clears.
///
/// # Safety
///
/// A live object.
#[inline]
unsafe fn is_watched(object: *mut ffi::PyObject) -> bool {
    // SAFETY: a positive offset of the type is that of the list of weak references in the object.
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
#[pyclass(name = "Probe", frozen, weakref, module = "headrace._core")]
struct PyProbe(Filling<Option<Py<PyAny>>>);

static PROBES: FreeList = FreeList::new();

impl Pooled for PyProbe {
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
impl PyProbe {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0
            .get()
            .as_ref()
            .map_or(Ok(()), |held| visit.call(held))
    }
}

fn self_test(py: Python<'_>) -> PyResult<bool> {
    let class = py.get_type::<PyProbe>();
    if !private_layout::has_known_struct(&class)? || private_layout::has_managed_fields(&class) {
        return Ok(false);
    }
    replace_dealloc::<PyProbe>(py);
    let held = PyDict::new(py).into_any();
    // SAFETY: live objects, and the GIL is held.
    let (references, kept) =
        unsafe { (|| ffi::Py_REFCNT(class.as_ptr()), || (*PROBES.0.get()).kept) };
    let make = || {
        let Some(revived) = PROBES.take::<PyProbe>(py) else {
            let filling = Filling::new(Some(held.clone().unbind()));
            return Ok(Bound::new(py, PyProbe(filling))?.into_any());
        };
        if !private_layout::is_tracked(&revived) && revived.get().0.get().is_none() {
            // SAFETY: no other code has the object yet.
            unsafe { *revived.get().0.get_mut() = Some(held.clone().unbind()) };
            track(&revived);
        }
        Ok(revived.into_any())
    };
    let holds = |probe: &Bound<'_, PyAny>| {
        let probe = probe.cast::<PyProbe>()?;
        let has_held = |object: &Py<PyAny>| object.is(&held);
        Ok(private_layout::is_tracked(probe) && probe.get().0.get().as_ref().is_some_and(has_held))
    };
    let without = references();
    if !private_layout::revives(&held, make, kept, holds)? || references() != without + 1 {
        return Ok(false);
    }
    // An object to which a weak reference exists is deallocated by PyO3.
    let revived = make()?;
    let reference = PyWeakrefReference::new(&revived)?;
    let is_alive = reference.upgrade().is_some_and(|alive| alive.is(&revived));
    drop(revived);
    Ok(is_alive && reference.upgrade().is_none() && kept() == 0 && references() == without)
}
