//! The form of binary records and manifests. Spec: ibgib §15, §12.2.2 `bad_bin`.

use serde_json::Value;

use crate::accept::lower_hex_text;
use crate::binary::{BIN_INLINE_BYTES_MAX, CHUNK_BYTES_MAX, CHUNKS_PER_LIST_MAX};
use crate::cbor::Kind;
use crate::{Address, Object, Refusal, Relations};

/// Which rules the ib of a record calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinRules<'a> {
    /// ib `bin <h> ` with an empty extension: a binary in one record, or a manifest.
    Bin {
        /// The hash as the ib spells it.
        h: &'a str,
    },
    /// ib `binpage`.
    Page,
}

/// The rules for this ib; `None` for every other ib, the old `bin <h> <ext>` included.
pub(crate) fn of(ib: &str) -> Option<BinRules<'_>> {
    if ib == "binpage" {
        return Some(BinRules::Page);
    }
    let h = ib.strip_prefix("bin ")?.strip_suffix(' ')?;
    (!h.contains(' ')).then_some(BinRules::Bin { h })
}

impl BinRules<'_> {
    /// Judges a record; without `hash` the bytes of a one-record binary are not hashed again.
    pub(crate) fn check(self, kind: Kind, data: &[u8], relations: &Relations, hash: bool) -> Result<(), Refusal> {
        let fits = match (self, kind) {
            (Self::Bin { h }, Kind::Bytes) => {
                data.len() <= BIN_INLINE_BYTES_MAX && (!hash || h == lower_hex_text(&sealtide_crypto::sha256(data)))
            }
            (Self::Bin { h }, Kind::Json) => is_manifest(h, data, relations),
            (Self::Page, Kind::Json) => is_page(data),
            (_, Kind::None) | (Self::Page, Kind::Bytes) => false,
        };
        if fits { Ok(()) } else { Err(Refusal::BadBin) }
    }
}

fn is_manifest(h: &str, data: &[u8], relations: &Relations) -> bool {
    let Some(outer) = members(data, &["bin"]) else { return false };
    let Some(bin) = outer.get("bin").and_then(Value::as_object) else { return false };
    let list = if bin.contains_key("pages") { "pages" } else { "chunks" };
    let known = ["v", "size", "hash", list];
    if bin.len() != known.len() || !known.iter().all(|name| bin.contains_key(*name)) {
        return false;
    }
    let named = bin["v"].as_u64() == Some(2) && bin["hash"].as_str() == Some(h) && is_blake3_text(h);
    let pages = relations.get("page").map_or(&[][..], Vec::as_slice);
    let sum = if list == "pages" { pages_sum(&bin[list], pages) } else { chunks_sum(&bin[list]) };
    let page_relation_fits = list == "pages" || pages.is_empty();
    let size = bin["size"].as_u64().filter(|size| *size > BIN_INLINE_BYTES_MAX as u64);
    named && page_relation_fits && size.is_some() && sum == size
}

fn is_page(data: &[u8]) -> bool {
    members(data, &["chunks"]).and_then(|page| page.get("chunks").and_then(chunks_sum)).is_some()
}

/// The sum of the lengths of 1 to 4 096 chunks `[length, hash]`.
fn chunks_sum(list: &Value) -> Option<u64> {
    let chunks = list.as_array().filter(|chunks| (1..=CHUNKS_PER_LIST_MAX).contains(&chunks.len()))?;
    chunks.iter().try_fold(0, |sum, chunk| match chunk.as_array()?.as_slice() {
        [length, Value::String(hash)] if is_blake3_text(hash) => {
            let length = length.as_u64().filter(|length| (1..=u64::from(CHUNK_BYTES_MAX)).contains(length))?;
            Some(sum + length)
        }
        _ => None,
    })
}

/// The sum of the sizes of 1 to 4 096 pages `[size, address]`; the relation must name the same addresses.
fn pages_sum(list: &Value, relation: &[Address]) -> Option<u64> {
    let pages = list.as_array().filter(|pages| (1..=CHUNKS_PER_LIST_MAX).contains(&pages.len()))?;
    let mut named = Vec::with_capacity(pages.len());
    let page_bytes_max = u64::from(CHUNK_BYTES_MAX) * CHUNKS_PER_LIST_MAX as u64;
    let sum = pages.iter().try_fold(0, |sum, page| match page.as_array()?.as_slice() {
        [size, Value::String(address)] => {
            named.push(Address::parse(address).ok().filter(|address| address.ib() == "binpage")?);
            Some(sum + size.as_u64().filter(|size| (1..=page_bytes_max).contains(size))?)
        }
        _ => None,
    })?;
    // A binary that repeats itself has equal pages; the relation may name such a page once or each time.
    let mut relation = relation.to_vec();
    for addresses in [&mut named, &mut relation] {
        addresses.sort();
        addresses.dedup();
    }
    (named == relation).then_some(sum)
}

fn members(data: &[u8], known: &[&str]) -> Option<Object> {
    let object = match serde_json::from_slice(data) {
        Ok(Value::Object(object)) => object,
        _ => return None,
    };
    (object.len() == known.len() && known.iter().all(|name| object.contains_key(*name))).then_some(object)
}

/// 64 lower-case hex digits.
fn is_blake3_text(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
