//! Frames of our own timelines: one record per change. Spec: ibgib §12.7, folders §2.

use sealtide_crypto::{Entropy, sha256};
use serde_json::{Value, json};

use crate::stamp_text::http_date;
use crate::{Address, Data, Object, Refusal, Relations, TimelineId, Verified};

/// A time stamp in a record: `data.timestamp` (RFC 7231, seconds) and `data.timestampMs` (0 to 999).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Milliseconds since 1970-01-01 UTC; years 1970 to 9999.
    pub ms: u64,
}

/// What a record is in its timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameFacts {
    /// The address of the first frame (its own for a first frame).
    pub tjp: Address,
    /// SHA-256 of that address.
    pub timeline: TimelineId,
    /// `data.n`, 0 for the first frame.
    pub n: u64,
    /// `rel8ns.past`, in order: what is in this timeline, each once. Empty for the first frame.
    pub past: Vec<Address>,
    /// `rel8ns.graftorphan`: tips of this timeline that were merged or settled into this frame, each once.
    pub orphans: Vec<Address>,
    /// `data.timestamp` and `timestampMs`, when they can be read.
    pub stamp: Option<Stamp>,
}

/// Makes the first frame of a timeline. Adds `isTjp`, `n: 0`, `uuid`, the time stamp and `ancestor: [ib^gib]`.
///
/// # Panics
/// When `ib` holds `^` or the record would break strict acceptance: a bug of the caller.
pub fn genesis(ib: &str, data: Object, relations: Relations, stamp: Stamp, uuid: &str) -> Verified {
    try_genesis(ib, data, relations, stamp, uuid).expect("the caller of genesis gives parts that make a valid record")
}

/// As [`genesis`], for parts that come from outside.
///
/// # Errors
/// What strict acceptance would say of the record, `too_large` for instance.
pub fn try_genesis(
    ib: &str,
    mut data: Object,
    mut relations: Relations,
    stamp: Stamp,
    uuid: &str,
) -> Result<Verified, Refusal> {
    data.insert("isTjp".to_owned(), Value::Bool(true));
    data.insert("n".to_owned(), json!(0));
    data.insert("uuid".to_owned(), json!(uuid));
    stamp.write_to(&mut data);
    let root = Address::parse("ib^gib").expect("the root is a valid address");
    relations.insert("ancestor".to_owned(), vec![root]);
    Verified::make(ib, Data::Json(Value::Object(data)), relations)
}

/// Makes the next frame: the new members replace the old ones whole, `n` + 1, `past: [prev]`, `tjp` linked,
/// `ancestor` and `uuid` kept. The stamp is never earlier than that of `prev`.
///
/// # Panics
/// When `prev` is no frame of a timeline or the record would break strict acceptance: a bug of the caller.
pub fn evolve(prev: &Verified, data: Object, relations: Relations, stamp: Stamp) -> Verified {
    try_evolve(prev, data, relations, stamp).expect("the caller of evolve gives parts that make a valid record")
}

/// As [`evolve`], for a `prev` or parts that come from outside: what is kept of a foreign `prev` (its ancestors)
/// may leave no room for the new members.
///
/// # Errors
/// What strict acceptance would say of the record; `bad_n` when `prev` is no frame of a timeline.
pub fn try_evolve(
    prev: &Verified,
    mut data: Object,
    mut relations: Relations,
    stamp: Stamp,
) -> Result<Verified, Refusal> {
    let (facts, old) = prev.frame_ref().zip(prev.object()).ok_or(Refusal::BadN)?;
    data.shift_remove("isTjp");
    data.insert("n".to_owned(), json!(facts.n.saturating_add(1)));
    match old.get("uuid") {
        Some(uuid) => data.insert("uuid".to_owned(), uuid.clone()),
        None => data.shift_remove("uuid"),
    };
    facts.stamp.map_or(stamp, |before| stamp.max(before)).write_to(&mut data);
    match prev.relations().get("ancestor") {
        Some(ancestors) => relations.insert("ancestor".to_owned(), ancestors.clone()),
        None => relations.remove("ancestor"),
    };
    relations.insert("past".to_owned(), vec![prev.address().clone()]);
    relations.insert("tjp".to_owned(), vec![facts.tjp.clone()]);
    Verified::make(prev.address().ib(), Data::Json(Value::Object(data)), relations)
}

/// Makes a record that is in no timeline.
///
/// # Panics
/// When the record would break strict acceptance: a bug of the caller.
pub fn stone(ib: &str, data: Data, relations: Relations) -> Verified {
    Verified::make(ib, data, relations).expect("the caller of stone gives parts that make a valid record")
}

/// Makes the first frame of a space: ib `space`, data `{name, kind, by}`. The space id is the hash in its gib.
pub fn space_genesis(name: &str, kind: &str, by: &str, stamp: Stamp, uuid: &str) -> Verified {
    let mut data = Object::new();
    data.insert("name".to_owned(), json!(name));
    data.insert("kind".to_owned(), json!(kind));
    data.insert("by".to_owned(), json!(by));
    genesis("space", data, Relations::new(), stamp, uuid)
}

/// A new uuid: 16 random bytes as decimal numbers put together, hashed. 64 lower-case hex digits. Spec: ibgib §1.5.
pub fn uuid(entropy: &mut dyn Entropy) -> String {
    let mut bytes = [0u8; 16];
    entropy.fill(&mut bytes);
    let decimals: String = bytes.iter().map(u8::to_string).collect();
    data_encoding::HEXLOWER.encode(&sha256(decimals.as_bytes()))
}

impl Stamp {
    /// The last millisecond of the year 9999; later stamps are written as this one.
    pub const MS_MAX: u64 = 253_402_300_799_999;

    /// The whole seconds in the form of RFC 7231: `Tue, 14 Nov 2023 22:13:20 GMT`.
    pub fn timestamp(self) -> String {
        http_date(self.ms.min(Self::MS_MAX))
    }

    /// The milliseconds within the second, 0 to 999.
    pub fn timestamp_ms(self) -> u64 {
        self.ms.min(Self::MS_MAX) % 1000
    }

    /// The day in UTC: `2023-11-14`.
    pub fn date(self) -> String {
        let text = self.timestamp();
        let (day, name, year) = (&text[5..7], &text[8..11], &text[12..16]);
        let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(name).expect("the text names a month") / 3 + 1;
        format!("{year}-{month:02}-{day}")
    }

    fn write_to(self, data: &mut Object) {
        data.insert("timestamp".to_owned(), json!(self.timestamp()));
        data.insert("timestampMs".to_owned(), json!(self.timestamp_ms()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct CountingBytes;

    impl Entropy for CountingBytes {
        fn fill(&mut self, out: &mut [u8]) {
            out.iter_mut().zip(0..).for_each(|(byte, value)| *byte = value);
        }
    }

    // Proves: SY-8
    #[test]
    fn uuid_is_the_hash_of_the_decimals() {
        let text = uuid(&mut CountingBytes);
        assert!(text.len() == 64 && text.starts_with("ce4ee013") && text.ends_with("dbc98"), "{text}");
    }

    #[test]
    fn dates() {
        for (ms, date) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_700_000_000_123, "2023-11-14"),
            (1_704_067_199_999, "2023-12-31"),
            (u64::MAX, "9999-12-31"),
        ] {
            assert_eq!(Stamp { ms }.date(), date);
        }
        assert_eq!(Stamp { ms: u64::MAX }.timestamp_ms(), 999);
    }
}
