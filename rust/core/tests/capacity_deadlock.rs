//! Deadlocks of an owner with itself, and the owners of permits.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::clocked::{SLOTS, World, failed, granted, units};
use headrace_core::capacity::{AcquireError, AcquireRequest, OwnerId};

const US: OwnerId = OwnerId(7);

#[test]
fn acquire_reports_a_self_deadlock() {
    let (world, root) = World::slots(4);
    let (leaf, other) = (world.add(root, 3), world.add(root, 4));
    let first = world.take_ask(AcquireRequest::slots(leaf, 1).owner(US));
    let second = world.take_ask(AcquireRequest::slots(leaf, 1).owner(US));
    let _theirs = world.take_ask(AcquireRequest::slots(leaf, 1).owner(OwnerId(8)));
    assert_eq!(world.tree.permits_of(US), [first.id(), second.id()]);
    let ask = |slots| AcquireRequest::slots(leaf, slots).owner(US);
    // One more slot is available if the other permits are released; two more never are.
    let mut waits = world.waits_ask(ask(1));
    let deadlock = AcquireError::WouldDeadlock {
        node: leaf,
        resource: SLOTS,
        limit: units(3),
        held: units(2),
        permits: 2,
        permit: second.id(),
        acquired: leaf,
    };
    assert_eq!(failed(&mut Task::new(world.tree.acquire(ask(2)))), deadlock);
    assert!(
        world.refused(ask(2)),
        "without waiting there is no deadlock"
    );
    let across = failed(&mut Task::new(
        world
            .tree
            .acquire(AcquireRequest::slots(other, 3).owner(US)),
    ));
    assert!(matches!(across, AcquireError::WouldDeadlock { node, .. } if node == root));
    // Permits without an owner, and those of another owner, do not count.
    drop(world.waits_ask(AcquireRequest::slots(leaf, 2)));
    drop(world.waits_ask(AcquireRequest::slots(leaf, 2).owner(OwnerId(9))));
    second.suspend().unwrap();
    world.tree.check();
    drop(granted(&mut waits));
}

#[test]
fn resume_reports_a_self_deadlock() {
    let (world, root) = World::slots(2);
    let leaf = world.add(root, 2);
    let ours = world.take_ask(AcquireRequest::slots(leaf, 2).owner(US));
    ours.suspend().unwrap();
    let other = world.take_ask(AcquireRequest::slots(root, 1).owner(US));
    let deadlock = AcquireError::WouldDeadlock {
        node: root,
        resource: SLOTS,
        limit: units(2),
        held: units(1),
        permits: 1,
        permit: other.id(),
        acquired: root,
    };
    let again = || ours.resume(None).unwrap();
    assert_eq!(Task::new(again()).ready(), Err(deadlock));
    assert!(ours.is_suspended(), "and may be resumed again");
    // Another owner waits for these permits without a deadlock, unless it waits for its own.
    let theirs = OwnerId(8);
    drop(Task::waiting(again().by(theirs)));
    other.suspend().unwrap();
    let _held = world.take_ask(AcquireRequest::slots(root, 1).owner(theirs));
    assert!(matches!(
        Task::new(again().by(theirs)).ready(),
        Err(AcquireError::WouldDeadlock { .. })
    ));
    drop(Task::waiting(again()));
    world.tree.check();
}

#[test]
fn owner_is_known_without_waiting() {
    let (world, root) = World::slots(6);
    let leaf = world.add(root, 5);
    let take = |owner| world.take_ask(AcquireRequest::slots(leaf, 1).owner(owner));
    let ours = [take(US), take(US), take(US)];
    let theirs = take(OwnerId(8));
    let ids = |permits: &[&headrace_core::capacity::Permit]| -> Vec<_> {
        permits.iter().map(|permit| permit.id()).collect()
    };
    assert_eq!(
        world.tree.permits_of(US),
        ids(&[&ours[0], &ours[1], &ours[2]])
    );
    // The remaining ones change their order in the list of permits that were granted without waiting.
    let [first, second, third] = ours;
    drop(first);
    third.suspend().unwrap();
    let fourth = take(US);
    world.tree.check();
    assert_eq!(world.tree.permits_of(US), ids(&[&second, &third, &fourth]));
    assert_eq!(world.tree.permits_of(OwnerId(8)), ids(&[&theirs]));
    // The error names the newest permit that holds some of the resource.
    let error = failed(&mut Task::new(
        world.tree.acquire(AcquireRequest::slots(leaf, 4).owner(US)),
    ));
    let AcquireError::WouldDeadlock { held, permit, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!((held, permit), (units(2), fourth.id()));
    let waits = world.waits_ask(AcquireRequest::slots(leaf, 3).owner(US));
    world.tree.check();
    assert_eq!(world.tree.permits_of(US), ids(&[&second, &third, &fourth]));
    drop((waits, second, third, fourth, theirs));
    assert!(world.tree.permits_of(US).is_empty());
    world.tree.check();
}

/// A permit may get its owner later, while the tree has no waiter, while it has one, and while the permit is suspended.
#[test]
fn adopted_permit_counts_as_its_owners() {
    for (is_busy, is_suspended) in [(false, false), (true, false), (true, true)] {
        let (world, root) = World::slots(1);
        let permit = world.take(root, 1);
        let busy = is_busy.then(|| world.waits(root, 1));
        if is_suspended {
            drop(busy);
            permit.suspend().unwrap();
        }
        world.tree.own(permit.id(), US);
        // Another owner does not take it over.
        world.tree.own(permit.id(), OwnerId(8));
        world.tree.check();
        assert_eq!(world.tree.permits_of(US), [permit.id()]);
        assert_eq!(world.tree.permits_of(OwnerId(8)), []);
        let mut task = Task::new((world.tree).acquire(AcquireRequest::slots(root, 1).owner(US)));
        if is_suspended {
            drop(granted(&mut task));
        } else {
            assert!(matches!(
                failed(&mut task),
                AcquireError::WouldDeadlock { .. }
            ));
        }
        let id = permit.id();
        world.release(permit);
        assert_eq!(world.tree.permits_of(US), []);
        world.tree.own(id, US);
        world.tree.check();
    }
}
