//! The auto traits of the public types. A change here breaks users, so it must be intended.
#![cfg(not(loom))]

use headrace_core::buffer::{Buffer, Ended, Get, Join, Put, PutError, TryGetError};
use headrace_core::capacity::{
    Acquire, AcquireError, Alarm, AmountError, Cost, CostError, NodeError, NodeId, Permit,
    PermitError, Resume, Snapshot, Tree,
};
use headrace_core::signal::{Signal, Stopped, Wait};
use headrace_core::sync::QueuePosition;
use std::cell::Cell;
use std::error::Error;
use std::marker::PhantomPinned;

fn send_sync_unpin<T: Send + Sync + Unpin + 'static>() {}
fn send<T: Send>() {}
fn unpin<T: Unpin>() {}
fn error<T: Error + Send + Sync + 'static>() {}

#[test]
fn public_types_are_send_sync_unpin() {
    send_sync_unpin::<Buffer<u8>>();
    send_sync_unpin::<Put<u8>>();
    send_sync_unpin::<Get<u8>>();
    send_sync_unpin::<Join<u8>>();
    send_sync_unpin::<QueuePosition<Buffer<u8>>>();
    send_sync_unpin::<Signal<u8>>();
    send_sync_unpin::<Wait<u8>>();
    send_sync_unpin::<Tree>();
    send_sync_unpin::<NodeId>();
    send_sync_unpin::<Acquire>();
    send_sync_unpin::<Permit>();
    send_sync_unpin::<Resume>();
    send_sync_unpin::<Alarm>();
    send_sync_unpin::<Cost>();
    send_sync_unpin::<Snapshot>();
}

#[test]
fn items_need_not_be_sync() {
    send::<Buffer<Cell<u8>>>();
    send::<Put<Cell<u8>>>();
    send::<Get<Cell<u8>>>();
}

#[test]
fn items_need_not_be_unpin() {
    unpin::<Put<PhantomPinned>>();
    unpin::<Get<PhantomPinned>>();
    unpin::<Wait<PhantomPinned>>();
}

#[test]
fn error_types_implement_error() {
    error::<PutError<u8>>();
    error::<TryGetError>();
    error::<Ended>();
    error::<Stopped>();
    error::<AcquireError>();
    error::<AmountError>();
    error::<CostError>();
    error::<NodeError>();
    error::<PermitError>();
    assert_eq!(PutError::Full(1).to_string(), "the buffer is full");
    assert_eq!(format!("{:?}", PutError::Closed(1)), "Closed(..)");
}
