use super::Buffer;
use super::buffer::State;
use crate::sync::{Arc, Key};
use std::sync::Weak;

/// A place in a line, to be given up by somebody who cannot reach the future that stands there.
///
/// A future whose executor is gone is never polled again, and perhaps never dropped. Whoever finds that out, when
/// waking it fails, gives up its place: as if the future had been dropped, and what it was promised goes to the next.
/// Should it be polled after all, it begins to wait anew.
#[derive(Debug)]
pub struct Place<T> {
    /// Weak, since the waker in the line may own this.
    buffer: Weak<Buffer<T>>,
    line: Line,
    key: Key,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Line {
    Getters,
    Putters,
}

impl<T> Place<T> {
    pub(super) fn new(buffer: &Arc<Buffer<T>>, line: Line, key: Key) -> Self {
        Self {
            buffer: Arc::downgrade(buffer),
            line,
            key,
        }
    }

    /// Leaves the line, and hands on what was promised. Does nothing if the future has left by itself.
    pub fn give_up(&self) {
        if let Some(buffer) = self.buffer.upgrade() {
            buffer.leave(self.line, self.key);
        }
    }
}

impl<T> Buffer<T> {
    /// Takes a future out of its line; the next in line has what it was promised.
    pub(super) fn leave(&self, line: Line, key: Key) {
        // In a broken buffer there is nothing to hand on, and nobody to hand it to.
        let Some(mut state) = self.state.lock_unless_poisoned() else {
            return;
        };
        let left = match line {
            Line::Getters => state.getters.leave(key),
            Line::Putters => state.putters.leave(key),
        };
        State::settle_and_unlock(state);
        drop(left);
    }
}
