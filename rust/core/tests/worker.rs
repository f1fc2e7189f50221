//! The frames and the cell of a worker, in one thread. `loom_worker.rs` has the interleavings.

#![cfg(not(loom))]

use std::sync::atomic::AtomicU64;

use headrace_core::worker::frame::{self, HEAD, MAX_PARTS};
use headrace_core::worker::{Cell, Decoder, Frame, FrameError, MIN_WORDS};
use proptest::collection::vec;
use proptest::prelude::*;

fn encode(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    let lengths = frame.parts.iter().map(Vec::len);
    frame::write_head(&mut bytes, frame.kind, frame.position, lengths);
    bytes.extend(frame.parts.concat());
    bytes
}

fn decode(pieces: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::default();
    for &piece in pieces {
        let mut piece = piece;
        // As a reader does: a large part is filled in place, and only by as much as there is.
        while let Some((part, missing)) = decoder.large_part() {
            let (taken, rest) = piece.split_at(missing.min(piece.len()));
            if taken.is_empty() {
                break;
            }
            part.extend_from_slice(taken);
            decoder.filled()?;
            piece = rest;
        }
        decoder.feed(piece)?;
    }
    assert!(!decoder.is_amid_frame(), "the bytes end with a whole frame");
    Ok(std::iter::from_fn(|| decoder.take()).collect())
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let part = prop_oneof![
        4 => vec(any::<u8>(), 0..40),
        1 => (0usize..200_000).prop_map(|length| vec![7; length]),
    ];
    let frame =
        (any::<u8>(), any::<u64>(), vec(part, 0..5)).prop_map(|(kind, position, parts)| Frame {
            kind,
            position,
            parts,
        });
    vec(frame, 0..5)
}

proptest! {
    #[test]
    fn frames_are_decoded_whatever_the_pieces(frames in frames(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut start = 0;
        let mut pieces = Vec::new();
        for end in ends {
            pieces.push(&bytes[start..end]);
            start = end;
        }
        prop_assert_eq!(decode(&pieces).unwrap(), frames);
    }

    #[test]
    fn rubbish_is_refused_or_incomplete(bytes in vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::default();
        // Neither a panic nor an allocation that ends the process.
        let _ = decoder.feed(&bytes);
    }
}

#[test]
fn frames_are_decoded_byte_by_byte() {
    let frame = Frame {
        kind: 3,
        position: 1 << 40,
        parts: vec![vec![1, 2, 3], vec![], vec![4]],
    };
    let bytes = [encode(&frame), encode(&frame)].concat();
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(decode(&pieces), Ok(vec![frame.clone(), frame]));
}

#[test]
fn impossible_lengths_are_refused() {
    let mut bytes = Vec::new();
    frame::write_head(&mut bytes, 0, 0, [usize::MAX].into_iter());
    assert_eq!(
        Decoder::default().feed(&bytes),
        Err(FrameError::TooLong(u64::MAX))
    );
    let mut bytes = [0; HEAD];
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Decoder::default().feed(&bytes).unwrap_err();
    assert_eq!(error, FrameError::TooManyParts(u32::MAX as usize));
    assert!(error.to_string().contains("4294967295 parts"));
    const { assert!(MAX_PARTS < u32::MAX as usize) };
}

#[test]
fn vetoes_hold_for_one_position_each() {
    let words: Vec<AtomicU64> = (0..MIN_WORDS + 3).map(|_| AtomicU64::new(9)).collect();
    let cell = Cell::new(&words);
    cell.clear();
    assert_eq!((cell.ring(), cell.begun(), cell.blocking()), (4, 0, 0));
    assert!(cell.begin(1));
    assert!(!cell.veto(1), "it has begun");
    assert!(cell.veto(3), "it has not begun");
    assert!(cell.begin(2));
    assert!(!cell.begin(3), "it was taken back");
    assert!(cell.begin(4));
    // The slots are used again, without a trace of the old vetoes.
    assert!((5..=12).all(|position| cell.begin(position)));
    assert_eq!(cell.begun(), 12);
    cell.set_blocking(12);
    assert_eq!(cell.blocking(), 12);
}

#[test]
fn a_cell_has_the_group_of_its_worker() {
    let words: Vec<AtomicU64> = (0..MIN_WORDS).map(|_| AtomicU64::new(0)).collect();
    let cell = Cell::new(&words);
    assert_eq!(cell.group(), None);
    cell.set_group(7, 8);
    assert!(cell.begin(1), "the words of the group are no vetoes");
    assert_eq!(cell.group(), Some((7, 8)));
    cell.clear_group();
    assert_eq!(cell.group(), None);
    cell.set_group(7, 8);
    cell.clear();
    assert_eq!(cell.group(), None);
}
