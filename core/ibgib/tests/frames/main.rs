//! Timelines, folder frames, binaries, trees and graphs through the public API.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

mod binary;
mod chunk_vectors;
mod file;
mod graph;
mod latest;
mod merge;
mod merge_files;
mod merge_histories;
mod merge_members;
mod record;
mod shape;
mod tree;

use bytes::Bytes;
use sealtide_ibgib::{Address, Content, FileFrame, FileKind, Stamp, TipView, Verified};

/// A moment in 2023, for stamps.
pub(crate) const BASE_MS: u64 = 1_700_000_000_000;

/// How much longer than usual long tests run.
#[expect(clippy::disallowed_methods, reason = "a test may ask its environment for its size")]
pub(crate) fn scale() -> u32 {
    let scale = std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("SEALTIDE_TEST_SCALE={scale}");
    scale
}

pub(crate) fn property_cases() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        failure_persistence: None,
        ..proptest::test_runner::Config::with_cases(2000 * scale())
    }
}

pub(crate) fn stamp(offset_ms: u64) -> Stamp {
    Stamp { ms: BASE_MS + offset_ms }
}

/// A text that has the form of a node id.
pub(crate) fn node(letter: char) -> String {
    format!("stn1{}", letter.to_string().repeat(58))
}

pub(crate) fn uuid(number: u64) -> String {
    format!("{number:064x}")
}

pub(crate) fn text_file(path: &str, text: &str) -> FileFrame {
    FileFrame {
        path: path.to_owned(),
        kind: FileKind::File,
        exec: false,
        mtime: BASE_MS as i64,
        by: node('a'),
        content: Content::Text(text.to_owned()),
        deleted: false,
        yielded: None,
    }
}

/// The view of a timeline by its first frame and its tips.
pub(crate) fn view(first: &Verified, tips: &[Verified]) -> TipView {
    let facts = first.frame().unwrap();
    TipView {
        timeline: facts.timeline,
        first: first.address().clone(),
        first_ms: facts.stamp.unwrap().ms,
        tips: tips.iter().map(|tip| (tip.clone(), FileFrame::read(tip).unwrap())).collect(),
    }
}

/// Takes a made record through the front door.
pub(crate) fn accepted(record: &Verified) -> Verified {
    Verified::accept(Bytes::copy_from_slice(record.encoded())).unwrap()
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// The words of a splitmix64 stream, little-endian: the input of the chunk vectors. Four gigabytes a minute are enough.
pub(crate) fn splitmix(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// All orders of the numbers below `count`.
pub(crate) fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for number in 0..count {
        let grow = |order: &Vec<usize>| -> Vec<Vec<usize>> {
            let insert = |place| {
                let mut order = order.clone();
                order.insert(place, number);
                order
            };
            (0..=order.len()).map(insert).collect()
        };
        all = all.iter().flat_map(grow).collect();
    }
    all
}
