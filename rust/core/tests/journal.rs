//! The journal: what a later open finds after ends, crashes, damage and compactions.
#![cfg(not(loom))]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use headrace_core::journal::compact::compact;
use headrace_core::journal::record::{append_spend, spends};
use headrace_core::journal::scan::{Scan, Step};
use headrace_core::journal::{
    Claim, Journal, OpenError, Options, Outcome, Record, Status, lock_path,
};
use proptest::prelude::*;

/// A directory that is removed at the end of the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("headrace-journal-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("the directory is new");
        Self(path)
    }

    fn journal(&self) -> PathBuf {
        self.0.join("run.journal")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Journal {
    Journal::open(path, Options::default()).expect("the journal opens")
}

fn returned(value: &[u8]) -> Outcome<'_> {
    Outcome {
        time: 1.5,
        status: Status::Returned,
        attempts: 1,
        format: 7,
        value,
        spend: &[],
    }
}

/// Return the result of a call if it has ended.
fn value_of(payload: Option<Vec<u8>>) -> Option<Vec<u8>> {
    payload.map(|payload| match Record::decode(&payload) {
        Some(Record::End(end)) => end.value.to_vec(),
        other => panic!("not an end: {other:?}"),
    })
}

fn call(journal: &mut Journal, key: &[u8], value: &[u8]) -> Claim {
    let (mut claim, ended) = journal.claim(key).unwrap();
    assert_eq!(value_of(ended), None);
    journal.begin(&mut claim, 1.0).unwrap();
    journal.end(&mut claim, returned(value)).unwrap();
    claim
}

#[test]
fn an_ended_call_is_found_by_the_next_driver() {
    let directory = Directory::new();
    let path = directory.journal();
    let mut journal = open(&path);
    let mut spend = Vec::new();
    append_spend(&mut spend, "tokens", 12.5);
    append_spend(&mut spend, "dollars", 0.25);
    let (mut claim, _) = journal.claim(b"a").unwrap();
    journal.begin(&mut claim, 1.0).unwrap();
    let outcome = Outcome {
        spend: &spend,
        attempts: 3,
        ..returned(b"value")
    };
    let length = journal.end(&mut claim, outcome).unwrap();
    assert_eq!(length, fs::metadata(&path).unwrap().len());
    drop(journal);

    let mut journal = open(&path);
    assert_eq!(journal.ended(), 1);
    assert_eq!(journal.spend()["tokens"].to_bits(), 12.5_f64.to_bits());
    let (_, ended) = journal.claim(b"a").unwrap();
    let payload = ended.expect("it has ended");
    let Some(Record::End(end)) = Record::decode(&payload) else {
        panic!("not an end");
    };
    assert_eq!((end.attempts, end.format, end.value), (3, 7, &b"value"[..]));
    let amounts: Vec<_> = spends(end.spend).collect();
    assert_eq!(amounts, [("tokens", 12.5), ("dollars", 0.25)]);
    assert!(journal.has_ended(b"a").unwrap());
    assert!(!journal.has_ended(b"b").unwrap());
    assert!(journal.claim(b"b").unwrap().1.is_none());
}

#[test]
fn equal_keys_are_told_apart_by_their_order() {
    let directory = Directory::new();
    let mut journal = open(&directory.journal());
    call(&mut journal, b"a", b"first");
    call(&mut journal, b"a", b"second");
    drop(journal);
    let mut journal = open(&directory.journal());
    let mut results = Vec::new();
    for _ in 0..3 {
        results.push(value_of(journal.claim(b"a").unwrap().1));
    }
    let expected = [Some(b"first".to_vec()), Some(b"second".to_vec()), None];
    assert_eq!(results, expected);
}

#[test]
fn a_claim_that_was_given_back_is_claimed_again() {
    let directory = Directory::new();
    let mut journal = open(&directory.journal());
    let claims: Vec<_> = (0..4).map(|_| journal.claim(b"a").unwrap().0).collect();
    journal.unclaim(&claims[2]).unwrap();
    journal.unclaim(&claims[0]).unwrap();
    let again: Vec<_> = (0..3)
        .map(|_| journal.claim(b"a").unwrap().0.identity().occurrence)
        .collect();
    assert_eq!(again, [0, 2, 4]);
}

#[test]
fn a_begun_call_is_in_flight_until_it_has_ended() {
    let directory = Directory::new();
    let path = directory.journal();
    let mut journal = open(&path);
    call(&mut journal, b"done", b"");
    for key in [&b"x"[..], b"y"] {
        let (mut claim, _) = journal.claim(key).unwrap();
        journal.begin(&mut claim, 1.0).unwrap();
    }
    drop(journal);
    let mut journal = open(&path);
    let keys = |journal: &Journal| -> Vec<Vec<u8>> {
        let payloads = journal.in_flight().unwrap();
        let keys = payloads.iter().map(|payload| {
            let record = Record::decode(payload).unwrap();
            record.identity().unwrap().key.to_vec()
        });
        keys.collect()
    };
    assert_eq!(keys(&journal), [b"x", b"y"]);
    call(&mut journal, b"x", b"again");
    assert_eq!(keys(&journal), [b"y"]);
}

#[test]
fn a_second_driver_is_refused() {
    let directory = Directory::new();
    let path = directory.journal();
    let first = open(&path);
    let refused = Journal::open(&path, Options::default());
    assert!(matches!(refused, Err(OpenError::Locked)));
    drop(first);
    drop(open(&path));
    assert!(lock_path(&path).exists());
}

#[test]
fn an_interrupted_pass_goes_on_with_its_claims() {
    let directory = Directory::new();
    let path = directory.journal();
    let mut first = open(&path);
    call(&mut first, b"a", b"1");
    first.unlock();
    drop(open(&path));
    first.relock(&path).unwrap();
    assert_eq!(call(&mut first, b"a", b"2").identity().occurrence, 1);
    first.unlock();
    call(&mut open(&path), b"b", b"3");
    let refused = first.relock(&path).unwrap_err();
    assert!(matches!(refused, OpenError::Changed), "{refused}");
    let mut second = open(&path);
    second.unlock();
    compact(&path, Options::default(), 0.0).unwrap();
    assert!(matches!(second.relock(&path), Err(OpenError::Changed)));
}

#[test]
fn a_file_of_something_else_is_refused_and_left_alone() {
    let directory = Directory::new();
    let path = directory.journal();
    for (content, expected) in [
        (&b"some text that is long enough"[..], "it is not a journal"),
        (b"short", "it is not a journal"),
    ] {
        fs::write(&path, content).unwrap();
        let error = Journal::open(&path, Options::default()).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    let error = Journal::open(&directory.0, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Io(_)));
}

#[test]
fn a_later_version_is_refused() {
    let directory = Directory::new();
    let path = directory.journal();
    drop(open(&path));
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let checksum = crc32fast::hash(&bytes[..12]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let error = Journal::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Version(2)), "{error}");
}

/// Write a journal of eight calls, of which two have not ended. Return its bytes, and the length behind each end.
fn example(path: &Path) -> (Vec<u8>, Vec<u64>) {
    let mut journal = open(path);
    let mut lengths = Vec::new();
    journal.run(0.0, false, "v1").unwrap();
    for number in 0..8_u8 {
        let (mut claim, _) = journal.claim(&[number]).unwrap();
        journal.begin(&mut claim, 1.0).unwrap();
        if number % 4 != 3 {
            let value = vec![number; usize::from(number) * 9];
            lengths.push(journal.end(&mut claim, returned(&value)).unwrap());
        }
    }
    drop(journal);
    (fs::read(path).unwrap(), lengths)
}

#[test]
fn a_journal_cut_at_any_offset_has_all_that_was_written_before() {
    let directory = Directory::new();
    let path = directory.journal();
    let (bytes, lengths) = example(&path);
    for cut in 0..=bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut journal = open(&path);
        let complete = lengths.iter().filter(|length| **length <= cut as u64);
        assert_eq!(journal.ended(), complete.count(), "cut at {cut}");
        assert!(journal.damage().is_empty());
        // It continues where it was cut.
        call(&mut journal, b"more", b"value");
        drop(journal);
        let mut journal = open(&path);
        let (_, ended) = journal.claim(b"more").unwrap();
        assert_eq!(value_of(ended).unwrap(), b"value", "cut at {cut}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let directory = Directory::new();
    let path = directory.journal();
    let (bytes, _) = example(&path);
    let last = last_frame(&path);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        let byte = (bit / 8) as u64;
        match Journal::open(&path, Options::default()) {
            Err(OpenError::Damaged(damage)) => {
                assert!((damage.start..damage.end).contains(&byte), "bit {bit}");
                assert_eq!(fs::read(&path).unwrap(), flipped, "it was changed");
                let options = Options {
                    skips_damage: true,
                    ..Options::default()
                };
                let journal = Journal::open(&path, options).unwrap();
                assert_eq!(journal.damage(), [damage]);
                assert!(
                    journal.ended() >= 5,
                    "bit {bit}: it cost more than one record"
                );
            }
            Err(OpenError::NotAJournal | OpenError::DamagedHeader) => assert!(byte < 16),
            Err(error) => panic!("bit {bit}: {error}"),
            // A damaged header of the last frame looks like a torn tail.
            Ok(_) => assert!((last..last + 12).contains(&byte), "bit {bit} was not found"),
        }
    }
}

/// Return the offset of the last frame.
fn last_frame(path: &Path) -> u64 {
    let mut scan = Scan::new(&fs::File::open(path).unwrap()).unwrap();
    let mut last = 0;
    loop {
        match scan.step().unwrap() {
            Step::Frame { offset, .. } => last = offset,
            Step::Damage(damage) => panic!("{damage:?}"),
            Step::End => return last,
        }
    }
}

#[test]
fn bytes_lost_behind_the_last_sync_are_skipped() {
    let directory = Directory::new();
    let path = directory.journal();
    let mut journal = open(&path);
    call(&mut journal, b"a", b"1");
    journal.file().unwrap().sync_data().unwrap();
    journal.note_synced(journal.length());
    call(&mut journal, b"b", b"2");
    call(&mut journal, b"c", b"3");
    drop(journal);
    let mut bytes = fs::read(&path).unwrap();
    // The page of the second call was not written, that of the third was.
    let at = bytes.windows(1).rposition(|byte| byte == b"2").unwrap();
    bytes[at] = 0;
    fs::write(&path, &bytes).unwrap();
    let mut journal = open(&path);
    assert_eq!(journal.damage().len(), 1);
    assert_eq!(value_of(journal.claim(b"a").unwrap().1).unwrap(), b"1");
    assert_eq!(value_of(journal.claim(b"b").unwrap().1), None);
    assert_eq!(value_of(journal.claim(b"c").unwrap().1).unwrap(), b"3");
}

#[test]
fn damage_after_a_close_is_not_taken_for_a_power_cut() {
    let directory = Directory::new();
    let path = directory.journal();
    let mut journal = open(&path);
    // As before the first call of a journal that survives a power cut. All other records follow within the time of one sync.
    journal.note_synced(journal.length());
    call(&mut journal, b"a", b"1");
    call(&mut journal, b"b", b"2");
    journal.file().unwrap().sync_data().unwrap();
    journal.mark_synced(journal.length()).unwrap();
    let length = journal.length();
    drop(journal);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, length);
    let mut damaged = bytes.clone();
    let at = damaged
        .windows(1)
        .rposition(|byte| byte == b"1")
        .expect("the value");
    damaged[at] = 0;
    fs::write(&path, &damaged).unwrap();
    let opened = Journal::open(&path, Options::default());
    assert!(matches!(opened, Err(OpenError::Damaged(_))));
    // A pass without a record writes no mark.
    fs::write(&path, &bytes).unwrap();
    let mut journal = open(&path);
    journal.mark_synced(length).unwrap();
    assert_eq!(journal.length(), length);
}

#[test]
fn a_compaction_keeps_what_a_resume_needs() {
    let directory = Directory::new();
    let path = directory.journal();
    let (_, _) = example(&path);
    let mut journal = open(&path);
    let (mut claim, ended) = journal.claim(&[1]).unwrap();
    assert!(ended.is_some());
    journal.begin(&mut claim, 2.0).unwrap();
    journal.end(&mut claim, returned(b"newer")).unwrap();
    drop(journal);
    let (before, after) = compact(&path, Options::default(), 3.0).unwrap();
    assert!(after < before);
    assert_eq!(after, fs::metadata(&path).unwrap().len());
    let mut journal = open(&path);
    assert_eq!(journal.version(), Some((false, "v1")));
    assert_eq!(
        (journal.ended(), journal.in_flight().unwrap().len()),
        (6, 2)
    );
    assert_eq!(value_of(journal.claim(&[1]).unwrap().1).unwrap(), b"newer");
    assert!(matches!(
        compact(&path, Options::default(), 3.0),
        Err(OpenError::Locked)
    ));
    drop(journal);
    assert_eq!(
        compact(&path, Options::default(), 3.0).unwrap(),
        (after, after)
    );
}

#[derive(Clone, Debug)]
enum Action {
    Call(u8),
    Begin(u8),
    GiveBack(u8),
    Reopen,
    Compact,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..5_u8).prop_map(Action::Call),
        2 => (0..5_u8).prop_map(Action::Begin),
        2 => (0..5_u8).prop_map(Action::GiveBack),
        1 => Just(Action::Reopen),
        1 => Just(Action::Compact),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_agrees_with_a_plain_map(actions in prop::collection::vec(action(), 1..60)) {
        let directory = Directory::new();
        let path = directory.journal();
        let mut journal = Some(open(&path));
        // The results by key and occurrence, the occurrences claimed in this pass, and a number for each result.
        let mut results = HashMap::<(u8, u32), u32>::new();
        let mut claimed = HashMap::<u8, Vec<u32>>::new();
        let mut number = 0;
        for action in actions {
            match action {
                Action::Call(key) | Action::Begin(key) | Action::GiveBack(key) => {
                    let journal = journal.as_mut().unwrap();
                    let taken = claimed.entry(key).or_default();
                    let next = (0..=u32::MAX).find(|occurrence| !taken.contains(occurrence)).unwrap();
                    let (mut claim, ended) = journal.claim(&[key]).unwrap();
                    prop_assert_eq!(claim.identity().occurrence, next);
                    let expected = results.get(&(key, next)).map(|value| value.to_le_bytes().to_vec());
                    let is_new = ended.is_none();
                    prop_assert_eq!(value_of(ended), expected);
                    match action {
                        Action::GiveBack(_) => journal.unclaim(&claim).unwrap(),
                        Action::Begin(_) => {
                            taken.push(next);
                            journal.begin(&mut claim, 1.0).unwrap();
                        }
                        _ => {
                            taken.push(next);
                            if is_new {
                                number += 1;
                                journal.begin(&mut claim, 1.0).unwrap();
                                journal.end(&mut claim, returned(&u32::to_le_bytes(number))).unwrap();
                                results.insert((key, next), number);
                            }
                        }
                    }
                }
                Action::Reopen | Action::Compact => {
                    drop(journal.take());
                    if matches!(action, Action::Compact) {
                        compact(&path, Options::default(), 0.0).unwrap();
                    }
                    claimed.clear();
                    journal = Some(open(&path));
                }
            }
            prop_assert_eq!(journal.as_ref().unwrap().ended(), results.len());
        }
    }
}

#[test]
#[ignore = "a measurement: a million records"]
fn a_million_records_open_in_bounded_time_and_memory() {
    let directory = Directory::new();
    let path = directory.journal();
    let mut journal = open(&path);
    let value = [b'x'; 150];
    let since = std::time::Instant::now();
    for number in 0..1_000_000_u32 {
        let key = format!("record {number}");
        let (mut claim, _) = journal.claim(key.as_bytes()).unwrap();
        journal.begin(&mut claim, 1.0).unwrap();
        journal.end(&mut claim, returned(&value)).unwrap();
    }
    println!(
        "written in {:?}, {} bytes",
        since.elapsed(),
        journal.length()
    );
    drop(journal);
    let since = std::time::Instant::now();
    let mut journal = open(&path);
    println!("opened in {:?}", since.elapsed());
    println!("{} bytes a call", journal.memory() / journal.calls());
    let since = std::time::Instant::now();
    for number in 0..1_000_000_u32 {
        let key = format!("record {number}");
        assert!(journal.claim(key.as_bytes()).unwrap().1.is_some());
    }
    println!("replayed in {:?}", since.elapsed());
}
