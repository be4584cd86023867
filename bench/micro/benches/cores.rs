//! The pure parts on one core: hashes, records, set digests, and a session in memory.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on ends")]

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sealtide_crypto::{Now, blake3, sha256};
use sealtide_ibgib::{Data, Relations, Verified};
use sealtide_sync::SetSummary;
use sealtide_wire::frame::Header;
use sealtide_wire::session::{PathId, Session, SessionConfig, SessionLimits, Terms};

const RECORDS: usize = 1000;
const FILE_BYTES: usize = 100 << 20;
const MESSAGES: usize = 32;

fn main() {
    divan::main();
}

/// Encoded records of about 1 KiB, all different.
fn records() -> Vec<Bytes> {
    let text = "tide ".repeat(170);
    (0..RECORDS)
        .map(|number| {
            let data = Data::Bytes(Bytes::from(format!("{number:06} {text}")));
            Verified::make("note", data, Relations::default()).unwrap().encoded().clone()
        })
        .collect()
}

/// What a node does to each record of a peer: form, limits and hash.
// Measures: SY-11, at least 200,000 a second
#[divan::bench]
fn records_accepted(bencher: Bencher) {
    let records = records();
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        for record in &records {
            black_box(Verified::accept(record.clone()).unwrap());
        }
    });
}

/// One SHA-256 over each record, to tell hashing from the rest.
#[divan::bench]
fn records_hashed(bencher: Bencher) {
    let records = records();
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        for record in &records {
            black_box(sha256(record));
        }
    });
}

/// SHA-256 over the bytes of a large record.
// Measures: SY-11, at least 1 GiB a second
#[divan::bench(sample_count = 5)]
fn bytes_hashed_sha256(bencher: Bencher) {
    let bytes = vec![7; FILE_BYTES];
    bencher.counter(BytesCount::new(FILE_BYTES)).bench_local(|| black_box(sha256(&bytes)));
}

/// BLAKE3, as for whole files.
#[divan::bench(sample_count = 5)]
fn bytes_hashed_blake3(bencher: Bencher) {
    let bytes = vec![7; FILE_BYTES];
    bencher.counter(BytesCount::new(FILE_BYTES)).bench_local(|| black_box(blake3(&bytes)));
}

/// The set digest after each new record.
// Measures: SY-93, at most 2 µs a record
#[divan::bench]
fn set_digest_updated(bencher: Bencher) {
    let ids: Vec<[u8; 32]> = (0..RECORDS).map(|number| sha256(&number.to_be_bytes())).collect();
    bencher.counter(ItemsCount::new(RECORDS)).with_inputs(SetSummary::default).bench_local_values(|mut summary| {
        for id in &ids {
            summary.add(id);
        }
        summary
    });
}

/// Two ends of a session in memory: frames, credit and acknowledgements, no sockets and no encryption.
#[divan::bench]
fn session_in_memory(bencher: Bencher) {
    const PATH: PathId = PathId(0);
    let message = Bytes::from(vec![9; 1 << 20]);
    bencher.counter(BytesCount::new(MESSAGES << 20)).bench_local(|| {
        let now = Now { mono_ms: 1, wall_ms: 1 };
        let mut ends = [true, false].map(|initiator| {
            let (ours, theirs, limits) = (Terms::default(), Terms::default(), SessionLimits::default());
            let mut end = Session::new(now, SessionConfig { initiator, ours, theirs, limits, jitter_seed: 1 });
            end.attach(now, PATH, 1).unwrap();
            end
        });
        let channel = ends[0].open(7, "sts/1").unwrap();
        let (mut sent, mut received) = (0, 0);
        while received < MESSAGES {
            while sent < MESSAGES && ends[0].send(channel, message.clone()).is_ok() {
                sent += 1;
            }
            for from in [0, 1] {
                while let Some(frame) = ends[from].poll_transmit(now, PATH, usize::MAX) {
                    let header = Header::parse(frame.head.as_ref(), u32::MAX).unwrap().unwrap();
                    let payload = match &frame.payload {
                        payload if payload.is_empty() => &frame.head.as_ref()[header.bytes()..],
                        payload => payload,
                    };
                    ends[1 - from].handle_frame(now, PATH, header, payload).unwrap();
                }
            }
            while ends[1].poll_event().is_some() {}
            while ends[0].poll_event().is_some() {}
            while let Ok(Some(message)) = ends[1].recv(channel) {
                ends[1].release(channel, message.len() as u64);
                received += 1;
            }
        }
    });
}
