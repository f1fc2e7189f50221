//! Regression tests: failures that arbitrary operations have found.

use crate::op::Op::{
    self, Acquire, Add, Cancel, CoolDown, Floor, Pass, Pause, Poll, Release, Resize, Unpause,
};
use crate::op::{Amounts, Limits, Quota};
use crate::run::Run;

/// The limits of a node without any limit.
const NOTHING: Limits = Limits {
    slots: None,
    memory: None,
    calls: None,
    money: None,
};

fn acquire(node: usize, slots: u64, calls: u64, priority: i32) -> Op {
    let cost = Amounts {
        slots,
        memory: 0,
        calls,
        money: 0,
    };
    Acquire(node, cost, priority, None)
}

/// The choice of the first waiter skipped an older one that had been passed as often as allowed. So the younger one counted as
/// missing slots, and kept the head of the rate queue that belonged to the older one.
#[test]
fn passed_waiter_stays_first_when_slots_are_missed() {
    let root = Limits {
        slots: Some(9),
        memory: None,
        calls: Some(Quota {
            calls: 2,
            millis: 1000,
            burst: Some(3),
        }),
        money: None,
    };
    let below = [0, 19, 31, 0, 35].map(|parent| (parent, NOTHING, 1));
    let nodes = std::iter::once((0, root, 1)).chain(below).collect();
    let add = |parent| Add(parent, NOTHING, 1);
    Run::new((0, 1), nodes).play(&[
        acquire(37, 4, 1, 0),
        acquire(23, 1, 1, 0),
        acquire(7, 1, 1, 0),
        acquire(7, 1, 1, 0),
        acquire(19, 2, 0, 1),
        acquire(8, 1, 0, 0),
        acquire(7, 2, 0, 0),
        acquire(19, 1, 0, 0),
        acquire(29, 1, 0, 0),
        acquire(18, 1, 1, 0),
        add(41),
        acquire(1, 1, 0, 0),
        acquire(15, 1, 0, 0),
        acquire(0, 1, 0, 0),
        acquire(5, 1, 0, 0),
        acquire(7, 1, 1, 0),
        acquire(8, 1, 0, 0),
        Pass(1500),
        acquire(50, 1, 0, 0),
        acquire(6, 2, 0, 0),
        acquire(36, 1, 0, 0),
        acquire(19, 2, 1, 0),
        acquire(36, 0, 1, 1),
        acquire(0, 1, 1, 0),
        add(5),
        Release(0),
        add(13),
        add(25),
        Cancel(20),
        add(0),
        acquire(17, 0, 1, 0),
        Cancel(0),
        add(14),
        Release(0),
        Poll(2),
        Release(48),
        add(5),
        Pause(39),
        Release(0),
    ]);
}

/// A waiter that lacked two resources after a pause reserved only the first of them.
#[test]
fn reservation_after_a_pause_covers_both_resources() {
    let limits = |slots, memory| Limits {
        slots: Some(slots),
        memory: Some(memory),
        calls: None,
        money: None,
    };
    let ask = |slots, memory| {
        let cost = Amounts {
            slots,
            memory,
            calls: 0,
            money: 0,
        };
        Acquire(0, cost, 0, None)
    };
    for passes in 1..4 {
        Run::new((0, passes), vec![(0, limits(0, 0), 1)]).play(&[
            Resize(0, limits(3, 0), true),
            ask(0, 6),
            ask(3, 7),
            ask(1, 7),
            ask(0, 1),
            ask(0, 1),
            ask(1, 1),
            Resize(0, limits(3, 9), true),
            ask(0, 1),
            Pause(0),
            ask(0, 1),
            Cancel(3),
            Unpause(0),
        ]);
    }
}

/// The ramp of a rate held up the first waiter, while others took the slots. The model counted them as passes, since it compared
/// the window with the permits of the last operation.
#[test]
fn full_window_holds_up_its_waiters() {
    let limits = |slots, calls| Limits {
        slots: Some(slots),
        calls: Some(Quota {
            calls,
            millis: 7,
            burst: Some(2),
        }),
        ..NOTHING
    };
    Run::new((0, 1), vec![(0, NOTHING, 1), (0, limits(0, 0), 1)]).play(&[
        acquire(1, 1, 0, 0),
        acquire(1, 1, 0, 0),
        Add(1, NOTHING, 1),
        Floor(2, 1),
        Pause(0),
        acquire(2, 1, 0, 0),
        Resize(1, limits(5, 1), false),
        acquire(1, 5, 1, 1),
        CoolDown(1, 3),
        Pass(3),
    ]);
}
