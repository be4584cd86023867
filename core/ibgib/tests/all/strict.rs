//! Strict acceptance: each row of ibgib §12.2.2 with what it takes and what it refuses.

use bytes::Bytes;
use minicbor::Encoder;
use sealtide_ibgib::hash::{gib_of, sha256v1};
use sealtide_ibgib::json::{Js, Rules, parse};
use sealtide_ibgib::record::Encodable;
use sealtide_ibgib::{Address, RECORD_BYTES_MAX, Refusal, Verified};

const A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

/// The outcome for a record text without a gib: the right one is put in.
fn accept(record: &str) -> Result<Verified, Refusal> {
    Verified::accept(encoded(record))
}

fn encoded(record: &str) -> Bytes {
    let Js::Object(mut record) = parse(record, Rules::Compat).unwrap() else { panic!("no object: {record}") };
    if *record.named("gib") == Js::Undefined {
        let gib = gib_of(&record, false).unwrap_or_else(|_| sha256v1(&record, "").hash);
        record.set("gib", Js::text(gib));
    }
    Encodable::of(&record).unwrap().encode().into()
}

/// An encoding with the parts as given, made by another CBOR writer.
fn raw(ib: &str, gib: &str, kind: u8, data: &[u8], relations: &str) -> Bytes {
    let mut encoder = Encoder::new(Vec::new());
    encoder.array(5).unwrap().str(ib).unwrap().str(gib).unwrap().u8(kind).unwrap();
    match kind {
        2 => encoder.bytes(data).unwrap(),
        _ => encoder.str(std::str::from_utf8(data).unwrap()).unwrap(),
    };
    encoder.str(relations).unwrap();
    encoder.into_writer().into()
}

/// The gib that makes these texts a record, whatever they are.
fn gib(ib: &str, kind: u8, data: &[u8], relations: &str) -> String {
    let hash = |bytes: &[u8]| data_encoding::HEXUPPER.encode(&sealtide_crypto::sha256(bytes));
    let mut whole = hash(ib.as_bytes());
    whole += &if relations.is_empty() { String::new() } else { hash(relations.as_bytes()) };
    whole += &if kind == 0 { String::new() } else { hash(data) };
    hash(whole.as_bytes())
}

/// The outcome for the parts with the bare hash as gib.
fn accept_raw(ib: &str, kind: u8, data: &str, relations: &str) -> Result<Verified, Refusal> {
    Verified::accept(raw(ib, &gib(ib, kind, data.as_bytes(), relations), kind, data.as_bytes(), relations))
}

#[track_caller]
fn check(record: &str, expected: Result<(), Refusal>) {
    assert_eq!(accept(record).map(|_| ()), expected, "{record}");
}

// Proves: SY-14 (too_large), SY-45
#[test]
fn row_too_large() {
    let sized = |size: usize| {
        let text = format!("\"{}\"", "x".repeat(size));
        raw("t", &gib("t", 1, text.as_bytes(), ""), 1, text.as_bytes(), "")
    };
    let overhead = sized(700_000).len() - 700_000;
    let largest = sized(RECORD_BYTES_MAX - overhead);
    assert_eq!(largest.len(), RECORD_BYTES_MAX);
    assert!(Verified::accept(largest).is_ok());
    assert_eq!(Verified::accept(sized(RECORD_BYTES_MAX - overhead + 1)), Err(Refusal::TooLarge));
}

// Proves: SY-14 (bad_json)
#[test]
fn row_bad_json() {
    let nest = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let flat = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    assert!(accept_raw("j", 1, &nest(64), "").is_ok());
    assert!(accept_raw("j", 1, &flat(65_535), "").is_ok());
    let bad = [
        "",
        "{",
        "[1,]",
        "{\"a\":1,\"a\":2}",
        "[{\"a\":1,\"b\":1,\"a\":2}]",
        "{\"__proto__\":1}",
        "[{\"__proto__\":1}]",
        "[{\"\\u005f_proto__\":1}]",
        "\"\\ud800\"",
        "{\"\\udc00\":1}",
        "1e999",
        "[-1e309]",
        "nope",
        "'a'",
    ];
    for text in bad.into_iter().chain([nest(65).as_str(), flat(65_536).as_str()]) {
        let shown = &text[..text.len().min(60)];
        assert_eq!(accept_raw("j", 1, text, ""), Err(Refusal::BadJson), "D {shown}");
        if !text.is_empty() {
            assert_eq!(accept_raw("j", 0, "", text), Err(Refusal::BadJson), "R {shown}");
        }
    }
    // The row comes before not_canonical: the same D behind a CBOR head that is one byte too long.
    let mut long_head = raw("j", &gib("j", 1, b"{", ""), 1, b"{", "").to_vec();
    long_head.splice(0..1, [0x98, 5]);
    assert_eq!(Verified::accept(long_head.into()), Err(Refusal::BadJson));
}

// Proves: SY-14 (not_canonical), SY-94
#[test]
fn row_not_canonical() {
    for text in [
        "{ \"a\":1}",
        " 1",
        "1 ",
        "{\"b\":1,\"a\":2}",
        "{\"10\":1,\"9\":1}",
        "{\"a\":1,\"9\":1}",
        "[{\"a\":1,\"9\":1}]",
        "{\"\u{e000}\":1,\"\u{10000}\":1}",
        "1.0",
        "1e0",
        "-0",
        "[-0]",
        "1e20",
        "1E21",
        "0.10",
        "1e21",
        "9007199254740993",
        "0.0000001",
        "\"\\/\"",
        "\"\\u0041\"",
        "\"\\u001F\"",
        "\"\\u000a\"",
        "\"\\u2028\"",
        "\"\\ud83d\\ude00\"",
        "[1, 2]",
    ] {
        assert_eq!(accept_raw("c", 1, text, ""), Err(Refusal::NotCanonical), "{text}");
    }
    for text in ["null", "false", "0", "\"\"", "{}", "[]"] {
        assert_eq!(accept_raw("c", 1, text, ""), Err(Refusal::NotCanonical), "no data: {text}");
    }
    for text in
        ["{}", "{\"x\":[]}", "{\"x\":null}", "null", "[]", "7", "\"\"", "{\"x\":[] }", "{\"y\":[\"a^gib\"],\"x\":[]}"]
    {
        assert_eq!(accept_raw("c", 0, "", text), Err(Refusal::NotCanonical), "R {text}");
    }
    assert_eq!(accept_raw("c", 0, "1", ""), Err(Refusal::NotCanonical), "kind 0 with data");
    assert!(
        accept_raw(
            "c",
            1,
            "[0.1,1e+21,100000000000000000000,1e-7,\"\\u001f\\n/\u{2028}\",{\"9\":1,\"b\":1,\"a\":2}]",
            ""
        )
        .is_ok()
    );
}

// Proves: SY-94
#[test]
fn other_cbor_spellings_are_not_canonical() {
    let good = raw("spelling", &gib("spelling", 1, b"[1]", ""), 1, b"[1]", "").to_vec();
    assert!(Verified::accept(good.clone().into()).is_ok());
    let gib_at = 1 + 1 + "spelling".len();
    let kind_at = gib_at + 2 + 64;
    let spellings: [(&str, std::ops::Range<usize>, &[u8]); 14] = [
        ("array head of two bytes", 0..1, &[0x98, 5]),
        ("indefinite array", 0..1, &[0x9F]),
        ("array of 4", 0..1, &[0x84]),
        ("array of 6", 0..1, &[0x86]),
        ("tagged array", 0..0, &[0xC1]),
        ("text head of two bytes", 1..2, &[0x78, 8]),
        ("text head of three bytes", 1..2, &[0x79, 0, 8]),
        ("ib as bytes", 1..2, &[0x48]),
        ("ib in pieces", 1..2, &[0x7F, 0x68]),
        ("gib head of three bytes", gib_at..gib_at + 2, &[0x79, 0, 64]),
        ("kind of two bytes", kind_at..kind_at + 1, &[0x18, 1]),
        ("kind 3", kind_at..kind_at + 1, &[3]),
        ("negative kind", kind_at..kind_at + 1, &[0x20]),
        ("data as bytes under kind 1", kind_at + 1..kind_at + 2, &[0x43]),
    ];
    for (what, range, bytes) in spellings {
        let mut other = good.clone();
        other.splice(range, bytes.iter().copied());
        assert_eq!(Verified::accept(other.into()), Err(Refusal::NotCanonical), "{what}");
    }
    for cut in 0..good.len() {
        assert_eq!(Verified::accept(good[..cut].to_vec().into()), Err(Refusal::NotCanonical), "cut at {cut}");
    }
    let mut longer = good;
    longer.push(0);
    assert_eq!(Verified::accept(longer.into()), Err(Refusal::NotCanonical), "a byte too many");
}

// Proves: SY-14 (bad_addr)
#[test]
fn row_bad_addr() {
    assert!(accept_raw(&"x".repeat(4096), 0, "", "").is_ok());
    for ib in ["", "a^b", "a\nb", "a\0", &"x".repeat(4097)] {
        let shown = ib.get(..8).unwrap_or(ib);
        assert_eq!(accept_raw(ib, 0, "", ""), Err(Refusal::BadAddr), "ib {shown:?}");
    }
    let short = &A[..32];
    for gib in
        ["", "zz", "GIB", short, &format!("{A}."), &format!("{A}.{short}"), &format!("{A}^{B}"), &[A; 5].join(".")]
    {
        assert_eq!(Verified::accept(raw("x", gib, 0, b"", "")), Err(Refusal::BadAddr), "gib {gib}");
    }
    assert_eq!(Verified::accept(raw("x", &[A; 4].join("."), 0, b"", "")), Err(Refusal::GibMismatch), "4 segments");
}

// Proves: SY-14 (primitive)
#[test]
fn row_primitive() {
    check("{\"ib\":\"x\",\"gib\":\"gib\"}", Err(Refusal::Primitive));
    check("{\"ib\":\"x\",\"gib\":\"gib\",\"data\":{\"anything\":1}}", Err(Refusal::Primitive));
}

// Proves: SY-14 (gib_mismatch)
#[test]
fn row_gib_mismatch() {
    check(&format!("{{\"ib\":\"x\",\"gib\":\"{A}\"}}"), Err(Refusal::GibMismatch));
    let lower = gib("x", 0, b"", "").to_lowercase();
    check(&format!("{{\"ib\":\"x\",\"gib\":\"{lower}\"}}"), Err(Refusal::GibMismatch));
    // The bare hash where the timeline calls for two segments, and the other way round.
    let data = "{\"n\":1}";
    let relations = format!("{{\"past\":[\"x^{A}\"],\"tjp\":[\"x^{A}\"]}}");
    let hash = gib("x", 1, data.as_bytes(), &relations);
    let outcome = |gib: &str| Verified::accept(raw("x", gib, 1, data.as_bytes(), &relations));
    assert_eq!(outcome(&hash), Err(Refusal::GibMismatch));
    assert_eq!(outcome(&format!("{hash}.{B}")), Err(Refusal::GibMismatch));
    assert!(outcome(&format!("{hash}.{A}")).is_ok());
    let stone = gib("x", 1, b"1", "");
    assert_eq!(Verified::accept(raw("x", &format!("{stone}.{stone}"), 1, b"1", "")), Err(Refusal::GibMismatch));
    // Gibs that cannot be made at all.
    check(
        "{\"ib\":\"x\",\"data\":{\"isTjp\":true},\"rel8ns\":{\"tjp\":[],\"y\":[\"a^gib\"]}}",
        Err(Refusal::GibMismatch),
    );
    check("{\"ib\":\"x\",\"rel8ns\":{\"tjp\":[\"\"]}}", Err(Refusal::GibMismatch));
}

// Proves: SY-14 (gib_mismatch): every byte of every part is covered.
#[test]
fn any_changed_byte_is_refused() {
    let good = encoded("{\"ib\":\"note\",\"data\":{\"a\":\"bcd\",\"n\":7},\"rel8ns\":{\"x\":[\"a^gib\"]}}");
    assert!(Verified::accept(good.clone()).is_ok());
    for at in 0..good.len() {
        for change in [1u8, 2, 0x20, 0x80] {
            let mut other = good.to_vec();
            other[at] ^= change;
            assert!(Verified::accept(other.into()).is_err(), "byte {at} ^ {change}");
        }
    }
}

// Proves: SY-14 (bad_rel)
#[test]
fn row_bad_rel() {
    for list in ["\"a^gib\"", "[\"a\"]", "[\"a^b\"]", "[1]", "[[\"a^gib\"]]", "{\"length\":1}", "[\"a^gib\",null]"] {
        check(&format!("{{\"ib\":\"x\",\"rel8ns\":{{\"y\":{list}}}}}"), Err(Refusal::BadRel));
    }
    for list in ["null", "\"\"", "7", "{}"] {
        check(&format!("{{\"ib\":\"x\",\"rel8ns\":{{\"ok\":[\"a^gib\"],\"y\":{list}}}}}"), Err(Refusal::BadRel));
    }
    check("{\"ib\":\"x\",\"rel8ns\":[[\"a^gib\"]]}", Err(Refusal::BadRel));
    check("{\"ib\":\"x\",\"rel8ns\":\"abc\"}", Err(Refusal::BadRel));
    check("{\"ib\":\"x\",\"rel8ns\":{\"y\":[\"a^gib\",\"a^gib\"],\"\":[],\"7\":[\"b^gib\"]}}", Ok(()));
}

// Proves: SY-14 (bad_tjp)
#[test]
fn row_bad_tjp() {
    let frame = |data: &str, relations: &str| format!("{{\"ib\":\"x\",\"data\":{data},\"rel8ns\":{relations}}}");
    let fine = format!("{{\"past\":[\"x^{A}\",\"x^{B}.{A}\"],\"tjp\":[\"x^{A}\"]}}");
    check(&frame("{\"n\":2}", &fine), Ok(()));
    // A first frame that names another first frame.
    check(&frame("{\"isTjp\":true}", &format!("{{\"tjp\":[\"x^{A}\"]}}")), Err(Refusal::BadTjp));
    // A primitive is no frame.
    check(&frame("{\"n\":1}", "{\"tjp\":[\"x^gib\"]}"), Err(Refusal::BadTjp));
    // Past frames of another timeline, of a primitive, of a first frame.
    for past in [format!("x^{B}"), format!("x^{A}.{B}"), "x^gib".to_owned()] {
        check(&frame("{\"n\":2}", &format!("{{\"past\":[\"{past}\"],\"tjp\":[\"x^{A}\"]}}")), Err(Refusal::BadTjp));
        check(&frame("{\"isTjp\":true}", &format!("{{\"past\":[\"{past}\"]}}")), Err(Refusal::BadTjp));
    }
    // A fork keeps the past of what it was forked from: frames of an ancestor's timeline.
    let forked = format!("{{\"ancestor\":[\"x^{A}.{B}\"],\"past\":[\"x^{B}\"]}}");
    let record = accept(&frame("{\"isTjp\":true,\"n\":0}", &forked)).unwrap();
    assert!(record.frame().unwrap().past.is_empty());
    // Two first frames, one behind the other: past frames of either are taken, and those of the last are its own.
    let nested = format!("{{\"past\":[\"x^{A}\",\"x^{B}.{A}\"],\"tjp\":[\"x^{A}\",\"x^{B}.{A}\"]}}");
    let record = accept(&frame("{\"n\":2}", &nested)).unwrap();
    assert_eq!(record.frame().unwrap().past, [Address::parse(&format!("x^{B}.{A}")).unwrap()]);
}

// Proves: SY-14 (bad_n)
#[test]
fn row_bad_n() {
    let relations = format!("{{\"past\":[\"x^{A}\"],\"tjp\":[\"x^{A}\"]}}");
    for data in [
        "[1]",
        "\"text\"",
        "7",
        "{\"a\":1}",
        "{\"n\":0}",
        "{\"n\":-1}",
        "{\"n\":1.5}",
        "{\"n\":\"1\"}",
        "{\"n\":null,\"a\":1}",
        "{\"n\":9007199254740992}",
    ] {
        check(&format!("{{\"ib\":\"x\",\"data\":{data},\"rel8ns\":{relations}}}"), Err(Refusal::BadN));
    }
    check(&format!("{{\"ib\":\"x\",\"rel8ns\":{relations}}}"), Err(Refusal::BadN));
    let record = accept(&format!("{{\"ib\":\"x\",\"data\":{{\"n\":3}},\"rel8ns\":{relations}}}")).unwrap();

    let before = |n: u64| accept(&format!("{{\"ib\":\"x\",\"data\":{{\"isTjp\":true,\"n\":{n}}}}}")).unwrap().frame();
    assert_eq!(record.check_counter(&mut |_| None), Ok(()));
    assert_eq!(record.check_counter(&mut |_| before(2)), Ok(()));
    for n in [0, 1, 3, 4] {
        assert_eq!(record.check_counter(&mut |_| before(n)), Err(Refusal::BadN), "{n}");
    }
}

mod bin {
    use super::*;

    fn chunk(length: u64, digit: &str) -> String {
        format!("[{length},\"{}\"]", digit.repeat(64))
    }

    fn manifest(h: &str, bin: &str, relations: &str) -> Result<(), Refusal> {
        accept_raw(&format!("bin {h} "), 1, &format!("{{\"bin\":{bin}}}"), relations).map(|_| ())
    }

    /// A manifest whose members stand in canonical order.
    fn bin(list: &str, hash: &str, size: u64, v: u64) -> String {
        // `chunks` sorts before `hash`, `pages` after it.
        match list.starts_with("\"chunks\"") {
            true => format!("{{{list},\"hash\":\"{hash}\",\"size\":{size},\"v\":{v}}}"),
            false => format!("{{\"hash\":\"{hash}\",{list},\"size\":{size},\"v\":{v}}}"),
        }
    }

    // Proves: SY-14 (bad_bin), SY-107
    #[test]
    fn row_bad_bin_inline() {
        let bytes =
            |ib: &str, bytes: &[u8]| Verified::accept(raw(ib, &gib(ib, 2, bytes, ""), 2, bytes, "")).map(|_| ());
        let named =
            |content: &[u8]| format!("bin {} ", data_encoding::HEXLOWER.encode(&sealtide_crypto::sha256(content)));
        let large = vec![7; 512 * 1024 + 1];
        assert_eq!(bytes(&named(b""), b""), Ok(()));
        assert_eq!(bytes(&named(&large[1..]), &large[1..]), Ok(()));
        assert_eq!(bytes(&named(&large), &large), Err(Refusal::BadBin), "over 512 KiB");
        assert_eq!(bytes(&named(b"a"), b"b"), Err(Refusal::BadBin), "another hash");
        assert_eq!(bytes(&named(b"a").to_uppercase().replace("BIN", "bin"), b"a"), Err(Refusal::BadBin), "upper case");
        assert_eq!(bytes("bin  ", b"a"), Err(Refusal::BadBin), "no hash");
        assert_eq!(accept_raw(&named(b""), 0, "", "").map(|_| ()), Err(Refusal::BadBin), "no data");
        assert_eq!(accept_raw(&named(b""), 1, "\"dGV4dA==\"", "").map(|_| ()), Err(Refusal::BadBin), "base64 text");
        for other in ["bin abc jpg", "bin abc", "binary", "bin a b "] {
            assert_eq!(bytes(other, b"x"), Ok(()), "{other} has no rules");
        }
    }

    // Proves: SY-14 (bad_bin), SY-107
    #[test]
    fn row_bad_bin_manifest() {
        let h = "c".repeat(64);
        let two = format!("\"chunks\":[{},{}]", chunk(4_194_304, "a"), chunk(1, "b"));
        assert_eq!(manifest(&h, &bin(&two, &h, 4_194_305, 2), ""), Ok(()));
        let refused = [
            ("version", bin(&two, &h, 4_194_305, 1)),
            ("sum", bin(&two, &h, 4_194_304, 2)),
            ("hash", bin(&two, &"d".repeat(64), 4_194_305, 2)),
            ("small", bin(&format!("\"chunks\":[{}]", chunk(524_288, "a")), &h, 524_288, 2)),
            ("long chunk", bin(&format!("\"chunks\":[{}]", chunk(4_194_305, "a")), &h, 4_194_305, 2)),
            ("empty chunk", bin(&format!("\"chunks\":[{},{}]", chunk(600_000, "a"), chunk(0, "b")), &h, 600_000, 2)),
            ("chunk hash", bin("\"chunks\":[[600000,\"abc\"]]", &h, 600_000, 2)),
            ("chunk shape", bin(&format!("\"chunks\":[[600000,\"{h}\",1]]"), &h, 600_000, 2)),
            ("no chunks", bin("\"chunks\":[]", &h, 600_000, 2)),
            ("unknown member", bin(&two, &h, 4_194_305, 2).replace("\"v\":2", "\"v\":2,\"x\":1")),
            ("missing member", bin(&two, &h, 4_194_305, 2).replace(",\"v\":2", "")),
        ];
        for (what, bin) in refused {
            assert_eq!(manifest(&h, &bin, ""), Err(Refusal::BadBin), "{what}");
        }
        let many = |count: usize| {
            let list = vec![chunk(1000, "a"); count].join(",");
            bin(&format!("\"chunks\":[{list}]"), &h, 1000 * count as u64, 2)
        };
        assert_eq!(manifest(&h, &many(4096), ""), Ok(()));
        assert_eq!(manifest(&h, &many(4097), ""), Err(Refusal::BadBin), "4 097 chunks");
        let page = format!("{{\"page\":[\"binpage^{A}\"]}}");
        assert_eq!(
            manifest(&h, &bin(&two, &h, 4_194_305, 2), &page),
            Err(Refusal::BadBin),
            "chunks with a page relation"
        );
        let outer = format!("{{\"bin\":{},\"x\":1}}", bin(&two, &h, 4_194_305, 2));
        assert_eq!(accept_raw(&format!("bin {h} "), 1, &outer, "").map(|_| ()), Err(Refusal::BadBin), "outer member");
    }

    // Proves: SY-14 (bad_bin), SY-107
    #[test]
    fn row_bad_bin_pages() {
        let h = "c".repeat(64);
        let pages = format!("\"pages\":[[600000,\"binpage^{A}\"],[5,\"binpage^{B}\"]]");
        let both = format!("{{\"page\":[\"binpage^{A}\",\"binpage^{B}\"]}}");
        assert_eq!(manifest(&h, &bin(&pages, &h, 600_005, 2), &both), Ok(()));
        assert_eq!(manifest(&h, &bin(&pages, &h, 600_004, 2), &both), Err(Refusal::BadBin), "sum");
        assert_eq!(manifest(&h, &bin(&pages, &h, 600_005, 2), ""), Err(Refusal::BadBin), "no relation");
        let one = format!("{{\"page\":[\"binpage^{A}\"]}}");
        assert_eq!(manifest(&h, &bin(&pages, &h, 600_005, 2), &one), Err(Refusal::BadBin), "a page without relation");
        let other = pages.replace("binpage^", "other^");
        let relation = both.replace("binpage^", "other^");
        assert_eq!(manifest(&h, &bin(&other, &h, 600_005, 2), &relation), Err(Refusal::BadBin), "no page");

        let page = |data: &str| accept_raw("binpage", 1, data, "").map(|_| ());
        assert_eq!(page(&format!("{{\"chunks\":[{}]}}", chunk(1, "a"))), Ok(()));
        let many = vec![chunk(1, "a"); 4097].join(",");
        for data in ["{\"chunks\":[]}", "{\"chunks\":[1]}", "{\"a\":1}", "[1]", &format!("{{\"chunks\":[{many}]}}")] {
            assert_eq!(page(data), Err(Refusal::BadBin), "{}", &data[..data.len().min(40)]);
        }
        assert_eq!(accept_raw("binpage", 0, "", "").map(|_| ()), Err(Refusal::BadBin));
    }
}

// Proves: SY-94: shapes that share an address have different strong ids.
#[test]
fn collisions_have_different_sids() {
    let data = accept("{\"ib\":\"same\",\"data\":{\"x\":[\"a^gib\"]}}").unwrap();
    let relations = accept("{\"ib\":\"same\",\"rel8ns\":{\"x\":[\"a^gib\"]}}").unwrap();
    let text = b"{\"x\":[\"a^gib\"]}";
    let bytes = Verified::accept(raw("same", &gib("same", 2, text, ""), 2, text, "")).unwrap();
    assert!(data.address() == relations.address() && data.address() == bytes.address());
    let sids = std::collections::BTreeSet::from([data.sid(), relations.sid(), bytes.sid()]);
    assert_eq!(sids.len(), 3);
}
