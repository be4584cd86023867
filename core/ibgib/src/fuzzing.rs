//! Bodies of the fuzz targets, shared with the property tests: they panic when a promise is broken. Spec: SY-10.

use bytes::Bytes;

use crate::hash::{gib_of, sha256v1};
use crate::json::{Js, JsObject, Rules, parse, scan_data, scan_relations, write, write_norm};
use crate::record::Encodable;
use crate::validate::{has_tjp, is_dna, tjp_address, validate_record, validate_relations};
use crate::{Verified, plumbing};

/// Any bytes as an encoded record. What is accepted is made again from its parts and gives the same bytes.
pub fn record(input: &[u8]) {
    let encoded = Bytes::copy_from_slice(input);
    let trusted = Verified::from_own_log(encoded.clone());
    let Ok(accepted) = Verified::accept(encoded) else { return };
    let trusted = trusted.expect("what is accepted can be taken back");
    assert_eq!(trusted.sid(), accepted.sid());
    assert_eq!(trusted.frame(), accepted.frame());
    let made = Verified::make(accepted.address().ib(), accepted.data(), accepted.relations().clone());
    let made = made.expect("the parts of a record make a record");
    assert_eq!(made.encoded(), accepted.encoded());
    assert_eq!((made.address(), made.sid()), (accepted.address(), accepted.sid()));

    // The compat half agrees about the same record.
    let shown = if accepted.data_text().is_some() || accepted.data_bytes().is_empty() {
        accepted.to_json().to_string()
    } else {
        return;
    };
    let Ok(Js::Object(compat)) = parse(&shown, Rules::Compat) else { panic!("to_json gives no object") };
    assert_eq!(Encodable::of(&compat).map(|encodable| encodable.sid()), Some(accepted.sid()));
    assert_eq!(validate_record(&compat), Ok(Vec::new()));
    assert_eq!(has_tjp(&compat), accepted.frame_ref().is_some());
    assert_eq!(tjp_address(&compat), accepted.frame_ref().map(|facts| facts.tjp.to_string()));
}

/// Any bytes as JSON: reader, writer, norm, hasher and validators; the one-pass scan agrees with reading and writing.
pub fn json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let strict = parse(text, Rules::Strict);
    let canonical = strict.as_ref().is_ok_and(|value| write_norm(value).as_deref() == Some(text));
    assert_eq!(scan_data(text).is_some(), canonical, "scan of {text:?}");
    if scan_relations(text).is_some() {
        assert!(canonical, "relations scan of {text:?}");
    }

    let Ok(value) = parse(text, Rules::Compat) else {
        assert!(strict.is_err(), "strict takes what compat refuses");
        return;
    };
    let written = write(&value).expect("a parsed value is not undefined");
    assert_eq!(parse(&written, Rules::Compat), Ok(value.json_round_trip()));
    let normal = write_norm(&value).expect("a parsed value is not undefined");
    let again = parse(&normal, Rules::Compat).expect("norm writes JSON");
    assert_eq!(write_norm(&again).as_deref(), Some(normal.as_str()));

    let mut made = JsObject::new();
    made.set("ib", Js::text("x"));
    made.set("data", value.clone());
    made.set("rel8ns", value.clone());
    for record in std::iter::once(&made).chain(value.as_object()) {
        let hash = sha256v1(record, "").hash;
        assert!(hash.is_empty() || hash.len() == 64);
        let _ = (gib_of(record, true), validate_record(record), validate_relations(record.named("rel8ns")));
        let _ = (has_tjp(record), is_dna(record), tjp_address(record));
        if let Some(encodable) = Encodable::of(record) {
            self::record(&encodable.encode());
        }
    }
}

/// Any text as a plumbing case: every transform, the hasher and the validators. The answer is always JSON.
pub fn case(input: &str) {
    for op in ["hash", "fork", "mut8", "rel8", "firstgen", "check"] {
        let answer = plumbing::run(op, input);
        assert!(parse(&answer, Rules::Compat).is_ok(), "answer {answer:?}");
    }
}
