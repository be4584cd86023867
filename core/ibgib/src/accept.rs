//! Strict acceptance, row by row. Spec: ibgib §12.2.2.
//!
//! The good path reads each text once: one scan proves that D (and R) is canonical and picks up the few members that
//! matter, then the received texts are hashed as they are. Values are built only to name the code of a refusal.
//!
//! One core of a two-core virtual machine, this crate unoptimised but for `opt-level = 1`; a file frame with its text:
//!
//! | encoded bytes | `accept` | `trusted` | `make` |
//! |---|---|---|---|
//! | 679 | 4.6 µs | 2.8 µs | 10.5 µs |
//! | 1 550 | 7.0 µs | 3.5 µs | 12.2 µs |
//! | 71 570 | 109 µs | 67 µs | 316 µs |

use std::collections::BTreeSet;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::cbor::{self, Kind, Parts};
use crate::encoded::Inner;
use crate::hash::{GibError, gib_of, has_rel8ns, hex_lower, strict_hash};
use crate::json::{
    Js, JsObject, NamedLists, RelText, Rules, Top, array_index, cmp_utf16, parse, scan_data, scan_relations,
    write_norm_value, write_text,
};
use crate::stamp_text::parse_http_date;
use crate::{Address, Data, FrameFacts, RECORD_BYTES_MAX, Refusal, Relations, Stamp, bin_rules};

/// Bytes of an ib, at most. Spec: ibgib §12.2.2 `bad_addr`.
pub(crate) const IB_BYTES_MAX: usize = 4096;
/// Segments of a gib, at most. Spec: ibgib §12.2.2 `bad_addr`.
const GIB_SEGMENTS_MAX: usize = 4;
/// The largest counter: beyond it doubles skip integers.
const N_MAX: u64 = (1 << 53) - 1;

/// Whether the gib is recomputed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hashing {
    /// Bytes of unknown origin.
    Recompute,
    /// The gib was computed a moment ago.
    Made,
    /// Bytes that this node hashed before.
    Trust,
}

// Spec: SY-14
pub(crate) fn check(encoded: Bytes, hashing: Hashing) -> Result<Inner, Refusal> {
    if encoded.len() > RECORD_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let parts = cbor::decode(&encoded).ok_or_else(|| not_canonical_or_worse(&encoded))?;
    let data_text = match parts.kind {
        Kind::Json => Some(std::str::from_utf8(parts.data).map_err(|_| Refusal::NotCanonical)?),
        Kind::None | Kind::Bytes => None,
    };
    let scanned = scan(data_text, parts.relations);
    let (top, lists) = scanned.ok_or_else(|| why_not_canonical(data_text, parts.relations))?;

    let address = strict_address(parts.ib, parts.gib)?;
    if address.is_primitive() {
        return Err(Refusal::Primitive);
    }
    let is_tjp = top.is_tjp.is_some_and(raw_truthy);
    let RelText::Lists(lists) = lists else { return Err(odd_relations(&parts)) };
    if hashing == Hashing::Recompute {
        check_gib(&parts, is_tjp, &lists)?;
    }
    let relations = relations(&address, &lists)?;
    let timeline = Timeline::of(&address, &relations, is_tjp)?;
    let frame = match timeline {
        Some(timeline) => Some(timeline.facts(&top)?),
        None => None,
    };
    if let Some(rules) = bin_rules::of(parts.ib) {
        rules.check(parts.kind, parts.data, &relations, hashing != Hashing::Trust)?;
    }
    let place = |part: &[u8]| {
        let start = part.as_ptr().addr() - encoded.as_ptr().addr();
        start..start + part.len()
    };
    let (data, relations_text) = (place(parts.data), place(parts.relations.as_bytes()));
    let kind = parts.kind;
    Ok(Inner {
        address,
        kind,
        data,
        relations_text,
        relations,
        frame,
        sid: OnceLock::new(),
        order: OnceLock::new(),
        encoded,
    })
}

pub(crate) fn make(ib: &str, data: &Data, relations: &Relations) -> Result<Inner, Refusal> {
    let (kind, data) = match data {
        Data::None => (Kind::None, Vec::new()),
        Data::Bytes(bytes) => (Kind::Bytes, bytes.to_vec()),
        Data::Json(value) => {
            // norm would lose such a member in silence.
            if names_proto(value, 0)? {
                return Err(Refusal::BadJson);
            }
            let mut text = String::new();
            write_norm_value(value, &mut text);
            if is_no_data(&text) { (Kind::None, Vec::new()) } else { (Kind::Json, text.into_bytes()) }
        }
    };
    make_parts(ib, kind, &data, relations)
}

pub(crate) fn make_canonical(ib: &str, data: &str, relations: &Relations) -> Result<Inner, Refusal> {
    make_parts(ib, Kind::Json, data.as_bytes(), relations)
}

fn make_parts(ib: &str, kind: Kind, data: &[u8], relations: &Relations) -> Result<Inner, Refusal> {
    let text = relations_text(relations)?;
    // An empty ib has no hash, and an ib with `^` no address: both are refused below whatever the gib is.
    let hash = if ib.is_empty() { [b'0'; 64] } else { strict_hash(ib, kind, data, &text) };
    let hash = std::str::from_utf8(&hash).expect("hex digits are ASCII");
    let is_tjp = kind == Kind::Json
        && scan_data(std::str::from_utf8(data).expect("JSON data is text"))
            .ok_or(Refusal::BadJson)?
            .is_tjp
            .is_some_and(raw_truthy);
    let gib = match relations.get("tjp").map(Vec::as_slice) {
        Some([.., last]) if !is_tjp => format!("{hash}.{}", last.gib()),
        Some([]) if is_tjp && !text.is_empty() => return Err(Refusal::GibMismatch),
        _ => hash.to_owned(),
    };
    let encoded = cbor::encode(&Parts { ib, gib: &gib, kind, data, relations: &text });
    check(encoded.into(), Hashing::Made)
}

/// The canonical relations text; empty without any entry. Spec: ibgib §2.1.
fn relations_text(relations: &Relations) -> Result<String, Refusal> {
    if relations.values().all(Vec::is_empty) {
        return Ok(String::new());
    }
    if relations.contains_key("__proto__") {
        return Err(Refusal::BadJson);
    }
    let mut order: Vec<(&String, &Vec<Address>)> = relations.iter().collect();
    order.sort_by(|(left, _), (right, _)| match (array_index(left), array_index(right)) {
        (None, None) => cmp_utf16(left, right),
        (left, right) => left.unwrap_or(u32::MAX).cmp(&right.unwrap_or(u32::MAX)),
    });
    let mut text = String::from("{");
    for (name, entries) in order {
        if text.len() > 1 {
            text.push(',');
        }
        write_text(name, &mut text);
        text.push_str(":[");
        for (position, entry) in entries.iter().enumerate() {
            if position > 0 {
                text.push(',');
            }
            write_text(entry.as_str(), &mut text);
        }
        text.push(']');
    }
    text.push('}');
    Ok(text)
}

/// Whether some member is called `__proto__`; too deep a value is `bad_json` at once.
fn names_proto(value: &serde_json::Value, depth: usize) -> Result<bool, Refusal> {
    if depth > 64 {
        return Err(Refusal::BadJson);
    }
    match value {
        serde_json::Value::Array(elements) => {
            elements.iter().try_fold(false, |found, element| Ok(found | names_proto(element, depth + 1)?))
        }
        serde_json::Value::Object(members) => members
            .iter()
            .try_fold(false, |found, (key, member)| Ok(found | (key == "__proto__") | names_proto(member, depth + 1)?)),
        _ => Ok(false),
    }
}

/// One pass over each text. `None`: some text is not canonical, or has no business being there.
fn scan<'a>(data: Option<&'a str>, relations: &'a str) -> Option<(Top<'a>, RelText<'a>)> {
    let top = match data {
        Some(text) if is_no_data(text) => return None,
        Some(text) => scan_data(text)?,
        None => Top::default(),
    };
    let lists = if relations.is_empty() { RelText::Lists(Vec::new()) } else { scan_relations(relations)? };
    match &lists {
        RelText::Lists(lists) if !relations.is_empty() && lists.iter().all(|(_, entries)| entries.is_empty()) => None,
        RelText::Odd if !has_rel8ns(&parse(relations, Rules::Strict).ok()?) => None,
        _ => Some((top, lists)),
    }
}

/// The canonical texts of values that do not count as data. Spec: ibgib §2.1.
fn is_no_data(text: &str) -> bool {
    matches!(text, "null" | "false" | "0" | "\"\"" | "{}" | "[]")
}

fn why_not_canonical(data: Option<&str>, relations: &str) -> Refusal {
    let bad = |text: &str| parse(text, Rules::Strict).is_err();
    if data.is_some_and(bad) || (!relations.is_empty() && bad(relations)) {
        Refusal::BadJson
    } else {
        Refusal::NotCanonical
    }
}

fn not_canonical_or_worse(encoded: &[u8]) -> Refusal {
    match cbor::json_texts(encoded) {
        Some((data, relations)) => why_not_canonical(data.as_deref(), &relations),
        None => Refusal::NotCanonical,
    }
}

fn strict_address(ib: &str, gib: &str) -> Result<Address, Refusal> {
    let segments = gib.split('.');
    let bad = ib.len() > IB_BYTES_MAX
        || ib.bytes().any(|byte| byte < 0x20)
        || segments.clone().count() > GIB_SEGMENTS_MAX
        || segments.into_iter().any(|segment| segment.len() == 32);
    if bad {
        return Err(Refusal::BadAddr);
    }
    Address::of(ib, gib).map_err(|_| Refusal::BadAddr)
}

fn check_gib(parts: &Parts<'_>, is_tjp: bool, lists: &NamedLists<'_>) -> Result<(), Refusal> {
    let tjp = lists.iter().find(|(name, _)| name == "tjp").map(|(_, entries)| entries.as_slice());
    let tjp_gib = match tjp {
        // A list that is there but empty, or ends in nothing, has no gib at all (§2.4).
        Some([]) if is_tjp => return Err(Refusal::GibMismatch),
        Some([.., last]) if last.is_empty() => return Err(Refusal::GibMismatch),
        Some([.., last]) if !is_tjp => Some(last.rsplit_once('^').map_or(last.as_ref(), |(_, gib)| gib)),
        _ => None,
    };
    let hash = strict_hash(parts.ib, parts.kind, parts.data, parts.relations);
    let rest = parts.gib.as_bytes().strip_prefix(&hash).ok_or(Refusal::GibMismatch)?;
    let fits = match tjp_gib {
        Some(tjp_gib) => rest.strip_prefix(b".") == Some(tjp_gib.as_bytes()),
        None => rest.is_empty(),
    };
    if fits { Ok(()) } else { Err(Refusal::GibMismatch) }
}

/// The refusal of a record whose relations are canonical JSON but not lists of strings: the gib comes first.
fn odd_relations(parts: &Parts<'_>) -> Refusal {
    let value = |text: &str| parse(text, Rules::Strict).unwrap_or(Js::Undefined);
    let mut record = JsObject::new();
    record.set("ib", Js::text(parts.ib));
    let data = match parts.kind {
        Kind::None => Js::Undefined,
        Kind::Json => value(&String::from_utf8_lossy(parts.data)),
        Kind::Bytes => Js::Bytes(parts.data.to_vec()),
    };
    record.set("data", data);
    record.set("rel8ns", value(parts.relations));
    match gib_of(&record, false) {
        Ok(gib) if gib == parts.gib => Refusal::BadRel,
        Ok(_) | Err(GibError::TjpEmpty | GibError::TjpFalsy | GibError::TjpMissing | GibError::Type) => {
            Refusal::GibMismatch
        }
    }
}

fn relations(address: &Address, lists: &NamedLists<'_>) -> Result<Relations, Refusal> {
    let mut relations = Relations::new();
    for (name, entries) in lists {
        let entries: Result<Vec<Address>, _> = entries.iter().map(|entry| Address::parse(entry)).collect();
        let entries = entries.map_err(|_| Refusal::BadRel)?;
        if entries.contains(address) {
            return Err(Refusal::BadRel);
        }
        relations.insert(name.to_string(), entries);
    }
    Ok(relations)
}

/// Where a record stands in its timeline, as its relations tell it.
struct Timeline {
    tjp: Address,
    past: Vec<Address>,
    orphans: Vec<Address>,
}

impl Timeline {
    /// `None` for a stone.
    fn of(address: &Address, relations: &Relations, is_tjp: bool) -> Result<Option<Self>, Refusal> {
        let list = |name: &str| relations.get(name).map_or(&[][..], Vec::as_slice);
        let tjps = list("tjp");
        let tjp = match (tjps.last(), is_tjp) {
            (None, false) => return Ok(None),
            (None, true) => address,
            // The gib says "first frame", the relation says "frame of another one".
            (Some(_), true) => return Err(Refusal::BadTjp),
            (Some(tjp), false) => tjp,
        };
        if tjps.iter().any(Address::is_primitive) || (!is_tjp && address.tjp_gib() != tjp.gib()) {
            return Err(Refusal::BadTjp);
        }
        // A fork may keep the past of what it was forked from (§3.2): those frames are in the timeline of an
        // ancestor. They are taken, and are no past of this timeline.
        // Sets, because a foreign record may hold thousands of each.
        let own: BTreeSet<&str> = tjps.iter().map(Address::gib).collect();
        let firsts: BTreeSet<&Address> = tjps.iter().collect();
        let from: BTreeSet<&str> =
            list("ancestor").iter().filter(|from| !from.is_primitive()).map(Address::tjp_gib).collect();
        let known =
            |frame: &Address| firsts.contains(frame) || own.contains(frame.tjp_gib()) || from.contains(frame.tjp_gib());
        if !list("past").iter().all(known) {
            return Err(Refusal::BadTjp);
        }
        // Only what is in this timeline is behind the frame, and each once: whoever walks back from it must not be led into another
        // timeline, where it would find tips that are no business of this one, nor load one frame thousands of times.
        let behind = |name: &str| {
            let mut seen = BTreeSet::new();
            let here = list(name).iter().rev().filter(|frame| *frame == tjp || frame.tjp_gib() == tjp.gib());
            let mut behind: Vec<Address> = here.filter(|frame| seen.insert(*frame)).cloned().collect();
            behind.reverse();
            behind
        };
        let (past, orphans) = (behind("past"), behind("graftorphan"));
        Ok(Some(Self { tjp: tjp.clone(), past, orphans }))
    }

    fn facts(self, top: &Top<'_>) -> Result<FrameFacts, Refusal> {
        if !top.object {
            return Err(Refusal::BadN);
        }
        let n = top.n.and_then(counter);
        let n = match (n, self.past.is_empty()) {
            (Some(n), _) if n > 0 => n,
            (_, true) => 0,
            // The past frame has at least 0, so this one has at least 1.
            (_, false) => return Err(Refusal::BadN),
        };
        let timeline = self.tjp.timeline_id();
        Ok(FrameFacts { tjp: self.tjp, timeline, n, past: self.past, orphans: self.orphans, stamp: stamp(top) })
    }
}

fn stamp(top: &Top<'_>) -> Option<Stamp> {
    let text = top.timestamp?.strip_prefix('"')?.strip_suffix('"')?;
    let seconds = parse_http_date(text)?;
    let ms = match top.timestamp_ms {
        None => 0,
        Some(raw) => counter(raw).filter(|ms| *ms < 1000)?,
    };
    Some(Stamp { ms: seconds * 1000 + ms })
}

/// The integer from 0 to 2⁵³ − 1 that a canonical value text spells.
fn counter(raw: &str) -> Option<u64> {
    let digits = raw.bytes().all(|byte| byte.is_ascii_digit());
    if digits { raw.parse().ok().filter(|n| *n <= N_MAX) } else { None }
}

fn raw_truthy(raw: &str) -> bool {
    !matches!(raw, "null" | "false" | "0" | "\"\"")
}

/// The lower-case hex of a hash as text.
pub(crate) fn lower_hex_text(bytes: &[u8; 32]) -> String {
    hex_lower(bytes).iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: SY-14 (bad_rel): no hash can name itself, so the row is proven below the gib check.
    #[test]
    fn a_relation_to_itself_is_refused() {
        let own = Address::of("x", &"A".repeat(64)).unwrap();
        let list = |entry: &str| vec![("y".into(), vec![std::borrow::Cow::Owned(entry.to_owned())])];
        assert_eq!(relations(&own, &list(own.as_str())), Err(Refusal::BadRel));
        assert!(relations(&own, &list("z^gib")).is_ok());
    }
}
