//! The first answer again, for a caller who does not know whether its request arrived. Spec: gateway §1.3.

use std::collections::{BTreeMap, VecDeque};

use sealtide_crypto::sha256_parts;

/// How long an answer is kept, in milliseconds.
const KEPT_MS: u64 = 10 * 60 * 1000;
/// Answers kept, at most.
const ANSWERS_MAX: usize = 1024;
/// Bytes of all answers kept, at most.
const BYTES_MAX: usize = 16 << 20;

/// What a caller calls its request, bound to the caller. 16 to 64 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdempotencyKey([u8; 32]);

impl IdempotencyKey {
    /// The key of `who`; none when `text` is no key.
    pub fn new(who: &str, text: &str) -> Option<Self> {
        let printable = (16..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        printable.then(|| Self(sha256_parts(&[&(who.len() as u64).to_be_bytes(), who.as_bytes(), text.as_bytes()])))
    }
}

/// What was answered before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing.
    None,
    /// This, to the same request.
    Answer(String),
    /// Something to another request: the caller mixed up its keys.
    OtherRequest,
}

/// Answers of the last ten minutes, at most 1 024 and 16 MiB; the oldest go first.
#[derive(Debug, Default)]
pub struct Idempotency {
    answers: BTreeMap<IdempotencyKey, Kept>,
    order: VecDeque<IdempotencyKey>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    request: [u8; 32],
    answer: String,
    until_mono_ms: u64,
}

impl Idempotency {
    /// No answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was answered to this key.
    // Spec: GW-69
    pub fn earlier(&mut self, key: &IdempotencyKey, request: &[u8; 32], mono_ms: u64) -> Earlier {
        self.drop_old(mono_ms);
        match self.answers.get(key) {
            None => Earlier::None,
            Some(kept) if kept.request == *request => Earlier::Answer(kept.answer.clone()),
            Some(_) => Earlier::OtherRequest,
        }
    }

    /// Keeps the first answer to a key.
    pub fn keep(&mut self, key: IdempotencyKey, request: [u8; 32], answer: String, mono_ms: u64) {
        if answer.len() > BYTES_MAX || self.answers.contains_key(&key) {
            return;
        }
        while self.order.len() >= ANSWERS_MAX || self.bytes + answer.len() > BYTES_MAX {
            self.drop_first();
        }
        self.bytes += answer.len();
        self.order.push_back(key.clone());
        self.answers.insert(key, Kept { request, answer, until_mono_ms: mono_ms + KEPT_MS });
    }

    fn drop_old(&mut self, mono_ms: u64) {
        while self.order.front().and_then(|key| self.answers.get(key)).is_some_and(|kept| kept.until_mono_ms <= mono_ms)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(kept) = self.order.pop_front().and_then(|key| self.answers.remove(&key)) {
            self.bytes -= kept.answer.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> IdempotencyKey {
        IdempotencyKey::new("somebody", &format!("{number:016}")).unwrap()
    }

    // Proves: GW-69
    #[test]
    fn bump_idempotent_answers_are_kept_ten_minutes_and_bound_to_request_and_caller() {
        let mut kept = Idempotency::new();
        kept.keep(key(1), [1; 32], "first".into(), 0);
        kept.keep(key(1), [1; 32], "second".into(), 5);
        assert_eq!(kept.earlier(&key(1), &[1; 32], KEPT_MS - 1), Earlier::Answer("first".into()));
        assert_eq!(kept.earlier(&key(1), &[2; 32], KEPT_MS - 1), Earlier::OtherRequest);
        assert_eq!(kept.earlier(&key(2), &[1; 32], 0), Earlier::None);
        let other = IdempotencyKey::new("somebody else", &format!("{:016}", 1)).unwrap();
        assert_eq!(kept.earlier(&other, &[1; 32], 0), Earlier::None);
        assert_eq!(kept.earlier(&key(1), &[1; 32], KEPT_MS), Earlier::None);
        for bad in ["short", &"x".repeat(65), "with space in it", "ümlaut-ümlaut-ümlaut"] {
            assert_eq!(IdempotencyKey::new("", bad), None, "{bad}");
        }
    }

    #[test]
    fn they_are_bounded_by_count_and_bytes() {
        let mut kept = Idempotency::new();
        for number in 0..3 * ANSWERS_MAX {
            kept.keep(key(number), [0; 32], "x".into(), 0);
        }
        assert_eq!((kept.answers.len(), kept.order.len(), kept.bytes), (ANSWERS_MAX, ANSWERS_MAX, ANSWERS_MAX));
        for number in 0..8 {
            kept.keep(key(90_000 + number), [0; 32], "x".repeat(BYTES_MAX / 4), 0);
        }
        assert!(kept.bytes <= BYTES_MAX && kept.answers.len() <= 4);
        kept.keep(key(99_999), [0; 32], "x".repeat(BYTES_MAX + 1), 0);
        assert_eq!(kept.earlier(&key(99_999), &[0; 32], 0), Earlier::None);
    }
}
