#[cfg(loom)]
use loom::sync as imp;
#[cfg(not(loom))]
use std::sync as imp;

/// What [`Mutex::lock`] gives: access until it is dropped.
pub type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

/// A lock with three ways in, one for each thing that a poisoned lock can mean.
///
/// A panic under the lock leaves the state in doubt. An ordinary operation must not go on from there
/// ([`lock`](Self::lock) panics), a clean-up must not panic a second time
/// ([`lock_unless_poisoned`](Self::lock_unless_poisoned)), and a visitor simply sees nothing
/// ([`try_lock`](Self::try_lock)).
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    #[inline]
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Waits for the lock.
    ///
    /// # Panics
    ///
    /// If a panic happened under this lock before: what it guards can no longer be trusted. Callers who want an error
    /// instead ask [`is_poisoned`](Self::is_poisoned) first.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(_) => broken(),
        }
    }

    /// Waits for the lock; `None` if a panic happened under it before.
    ///
    /// For `Drop`, which may itself run during a panic: a second one would end the process.
    #[inline]
    pub fn lock_unless_poisoned(&self) -> Option<MutexGuard<'_, T>> {
        self.0.lock().ok()
    }

    /// The lock if it is free and sound now; never waits.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }

    /// Whether a panic happened under the lock. It stays so.
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        // loom gives up on a model at its first panic, so there is nothing to ask there.
        #[cfg(loom)]
        return false;
        #[cfg(not(loom))]
        return self.0.is_poisoned();
    }
}

/// Out of line, so that the panic's formatting stays off the hot path.
#[cold]
#[inline(never)]
fn broken() -> ! {
    panic!("this structure is broken: a panic under its lock left it in doubt, see is_broken()")
}
