//! `Mutex`, a lock for std and loom alike. `Buffer`, `Signal` and the capacity `Tree` each guard their state by one.

#[cfg(loom)]
use loom::sync as imp;
#[cfg(not(loom))]
use std::sync as imp;

/// Access to the guarded value until it is dropped, returned by [`Mutex::lock`].
pub type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

/// A mutex with three ways to lock it, one for each reaction to a poisoned lock.
///
/// A panic under the lock may leave the state inconsistent. An ordinary operation must not continue then
/// ([`lock`](Self::lock) panics), a clean-up must not panic a second time
/// ([`lock_unless_poisoned`](Self::lock_unless_poisoned)), and a visitor skips the value
/// ([`try_lock`](Self::try_lock)).
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    /// Return a mutex that guards `value`.
    #[inline]
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Wait for the lock.
    ///
    /// # Panics
    ///
    /// If a panic happened under this lock before: the guarded value may be inconsistent. Callers that want an error
    /// instead check [`is_poisoned`](Self::is_poisoned) first.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(_) => broken(),
        }
    }

    /// Wait for the lock; `None` if a panic happened under it before.
    ///
    /// For `Drop`, which may itself run during a panic: a second panic would abort the process.
    #[inline]
    pub fn lock_unless_poisoned(&self) -> Option<MutexGuard<'_, T>> {
        self.0.lock().ok()
    }

    /// Lock if the lock is free and not poisoned; never waits.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }

    /// Return whether a panic ever happened under the lock.
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        // loom ends a model at its first panic, so no lock is ever seen poisoned.
        #[cfg(loom)]
        return false;
        #[cfg(not(loom))]
        return self.0.is_poisoned();
    }
}

/// Out of line, to keep the panic's formatting off the hot path.
#[cold]
#[inline(never)]
fn broken() -> ! {
    panic!(
        "this structure is broken: a panic under its lock may have left it inconsistent, see is_broken()"
    )
}
