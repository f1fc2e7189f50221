//! Every interleaving of a driver that takes tasks back with a worker that begins them.
#![cfg(loom)]

use headrace_core::sync::Arc;
use headrace_core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use headrace_core::worker::{Cell, MIN_WORDS};
use loom::model;
use loom::thread;

/// The memory of a cell with as many slots for vetoes as given.
fn words(ring: usize) -> Arc<Vec<AtomicU64>> {
    Arc::new(
        (0..MIN_WORDS - 1 + ring)
            .map(|_| AtomicU64::new(0))
            .collect(),
    )
}

#[test]
fn a_task_is_taken_back_or_begins_but_never_both() {
    model(|| {
        let words = words(2);
        let worker = {
            let words = Arc::clone(&words);
            thread::spawn(move || Cell::new(&words).begin(1))
        };
        let is_taken = Cell::new(&words).veto(1);
        let has_begun = worker.join().unwrap();
        assert!(
            !(is_taken && has_begun),
            "a task that was taken back has begun"
        );
        // If neither is true, the worker answers that it skipped the task.
        assert!(is_taken || Cell::new(&words).begun() == 1);
    });
}

#[test]
fn each_of_two_tasks_is_settled_exactly_once() {
    model(|| {
        let words = words(2);
        let skipped = Arc::new(AtomicUsize::new(0));
        let worker = {
            let (words, skipped) = (Arc::clone(&words), Arc::clone(&skipped));
            thread::spawn(move || {
                let mut ran = Vec::new();
                for position in 1..=2 {
                    if Cell::new(&words).begin(position) {
                        ran.push(position);
                    } else {
                        skipped.fetch_add(1, SeqCst);
                    }
                }
                ran
            })
        };
        let taken = Cell::new(&words).veto(2);
        let ran = worker.join().unwrap();
        assert!(ran.contains(&1), "the first task was not vetoed");
        assert_eq!(ran.contains(&2), skipped.load(SeqCst) == 0);
        assert!(!(taken && ran.contains(&2)));
    });
}

#[test]
fn a_worker_that_dies_at_any_step_has_begun_what_its_cell_says() {
    model(|| {
        let words = words(2);
        let called = Arc::new(AtomicUsize::new(0));
        let worker = {
            let (words, called) = (Arc::clone(&words), Arc::clone(&called));
            // It ends after the store of `begun`, before or after the call.
            thread::spawn(move || {
                if Cell::new(&words).begin(1) {
                    called.store(1, SeqCst);
                }
            })
        };
        let is_taken = Cell::new(&words).veto(1);
        worker.join().unwrap();
        let has_begun = Cell::new(&words).begun() >= 1 && !is_taken;
        // A task that was called must be known to have begun, so that it is not taken for one that never began.
        assert!(called.load(SeqCst) == 0 || has_begun);
    });
}

#[test]
fn a_group_is_read_with_its_own_start_time() {
    model(|| {
        let words = words(1);
        let host = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                let cell = Cell::new(&words);
                cell.set_group(1, 10);
                cell.clear_group();
                cell.set_group(2, 20);
            })
        };
        let group = Cell::new(&words).group();
        assert!(
            [None, Some((1, 10)), Some((2, 20))].contains(&group),
            "{group:?}"
        );
        host.join().unwrap();
        assert_eq!(Cell::new(&words).group(), Some((2, 20)));
    });
}
