//! One encoding of heads and manifests; everything else is refused.

use proptest::prelude::*;
use sealtide_crypto::blake3;
use sealtide_identity::keyring::PublicPair;
use sealtide_releases::bundle::{
    BundleHead, ChannelHead, FilesRefused, HEAD_BYTES_MAX, Manifest, NotABundle, ReleaseFile, Signed, check_files,
};
use serde_json::{Value, json};

use crate::support::Publisher;

// Proves: GW-72
#[test]
fn bundle_roundtrip_of_the_head() {
    let mut publisher = Publisher::new(&[1, 2]);
    publisher.rotate(2);
    let manifest = publisher.publish("stable", "1.0.0");
    let head = publisher.bundle(&manifest);
    let bytes = head.encode().unwrap();
    let file: Vec<u8> = bytes.iter().chain(b"payload").copied().collect();
    assert_eq!(BundleHead::read(&file).unwrap(), (head.clone(), bytes.len()));
    // Same input and key, same manifest; only hedged signatures differ.
    let again = Signed::sign(manifest.content().clone(), publisher.pair(publisher.active()));
    assert_eq!(again.bytes(), manifest.bytes());
    let value = manifest.to_value();
    assert_eq!(Signed::<Manifest>::from_value(&value).unwrap(), manifest);
    let channel_head = publisher.head(&manifest);
    assert_eq!(Signed::<ChannelHead>::from_value(&channel_head.to_value()).unwrap(), channel_head);
}

// Proves: GW-72
#[test]
fn how_long_a_head_will_be_is_known_before_what_it_says() {
    let mut publisher = Publisher::new(&[1, 2]);
    publisher.rotate(2);
    let manifest = publisher.publish("stable", "1.0.0");
    let head = publisher.bundle(&manifest);
    let keys = publisher.ring.ledger().keys();
    let public =
        PublicPair::of_entries(&keys.iter().filter(|key| key.version == publisher.active()).collect::<Vec<_>>());
    let public = public.unwrap();
    let length = |content: &Manifest| BundleHead::length_of(content, &public, &head.chain, &head.proof).unwrap();
    let mut expected = manifest.content().clone();
    expected.hash = [0; 32];
    assert_eq!(length(&expected), head.encode().unwrap().len());
    expected.size *= 10;
    assert_eq!(length(&expected), head.encode().unwrap().len() + 1, "a digit more");
}

// Proves: GW-72
#[test]
fn a_head_that_was_cut_or_is_spelled_otherwise_is_refused() {
    let mut publisher = Publisher::new(&[1]);
    let manifest = publisher.publish("stable", "1.0.0");
    let bytes = publisher.bundle(&manifest).encode().unwrap();
    for end in (0..bytes.len()).step_by(97).chain([1, 2, 5, 6, bytes.len() - 1]) {
        assert_eq!(BundleHead::read(&bytes[..end]).unwrap_err(), NotABundle::Short, "{end}");
    }
    assert_eq!(BundleHead::read(b"\x84\x64STB2......").unwrap_err(), NotABundle::Magic);
    assert_eq!(BundleHead::read(b"PK\x03\x04..........").unwrap_err(), NotABundle::Magic);
    // A longer head of the first array: 0x98 0x04.
    let longer: Vec<u8> = [0x98, 0x04].iter().chain(&bytes[1..]).copied().collect();
    assert!(matches!(BundleHead::read(&longer), Err(NotABundle::Magic | NotABundle::Encoding)));
    // A chain of indefinite length.
    let mut odd = bytes.clone();
    let at = (0..odd.len()).rev().find(|at| odd[*at] == 0x81).unwrap();
    odd[at] = 0x9f;
    odd.push(0xff);
    assert!(BundleHead::read(&odd).is_err());
    // Declared, and never sent: the reader asks for more, up to its bound, and reserves nothing.
    let endless = [b"\x84\x64STB1\x5b".as_slice(), &u64::MAX.to_be_bytes()].concat();
    assert_eq!(BundleHead::read(&endless).unwrap_err(), NotABundle::Short);
    let mut long = endless;
    long.resize(HEAD_BYTES_MAX, 0);
    assert_eq!(BundleHead::read(&long).unwrap_err(), NotABundle::Long);
}

// Proves: GW-72, GW-103
#[test]
fn every_byte_of_a_head_counts() {
    let mut publisher = Publisher::new(&[1]);
    let manifest = publisher.publish("stable", "1.0.0");
    let bytes = publisher.bundle(&manifest).encode().unwrap();
    let (trust, now) = (publisher.trust(), publisher.now);
    let counts = |bytes: &[u8]| {
        let Ok((head, _)) = BundleHead::read(bytes) else { return false };
        let mut trust = trust.clone();
        trust.follow(&head.chain).is_ok() && trust.manifest(&head.manifest, &[], now).is_ok()
    };
    assert!(counts(&bytes));
    let step = 7;
    let mut changed = 0;
    for at in (0..bytes.len()).step_by(step) {
        let mut odd = bytes.clone();
        odd[at] ^= 1;
        // What is not signed by anybody who counts here: the node's own entry in a ledger record.
        changed += usize::from(counts(&odd));
    }
    // That entry is 4 627 bytes as base64, with its name.
    assert!(changed * step < 6_300, "{changed} of {} changed bytes were not noticed", bytes.len() / step);
}

// Proves: GW-103
#[test]
fn alg_confusion() {
    let mut publisher = Publisher::new(&[1]);
    let manifest = publisher.publish("stable", "1.0.0");
    for (alg, entry) in [("HMAC-SHA256", 1), ("none", 1), ("EdDSA", 1), ("ML-DSA-87", 1), ("Ed25519", 0)] {
        let mut value = manifest.to_value();
        value["signatures"][entry]["alg"] = json!(alg);
        let read = Signed::<Manifest>::from_value(&value);
        let counts = read.is_ok_and(|signed| publisher.trust().manifest(&signed, &[], publisher.now).is_ok());
        assert!(!counts, "{alg}");
    }
    // A MAC keyed with the public key, in the place of a signature.
    let mut value = manifest.to_value();
    value["signatures"] = json!([{"kid": value["signatures"][1]["kid"], "alg": "HMAC-SHA256", "sig": "00".repeat(32)}]);
    assert!(Signed::<Manifest>::from_value(&value).is_err());
}

#[test]
fn manifests_are_read_strictly() {
    let mut publisher = Publisher::new(&[1]);
    publisher.publish("stable", "1.0.0");
    let value = publisher.publish("stable", "1.0.1").to_value();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut odd = value.clone();
        change(&mut odd);
        Signed::<Manifest>::from_value(&odd).err().map(|error| error.member)
    };
    assert_eq!(refused(&|_| ()), None);
    for (member, bad) in [
        ("manifestVersion", json!(2)),
        ("registry", json!("releases")),
        ("name", json!("../kiosk")),
        ("version", json!("1.0")),
        ("channel", json!("")),
        ("seq", json!(0)),
        ("seq", json!(1u64 << 53)),
        ("prev", json!(null)),
        ("minimumVersion", json!("x")),
        ("keyVersion", json!("1")),
        ("createdAt", json!("soon")),
        ("expiry", json!(0)),
        ("hash", json!("00")),
        ("size", json!(-1)),
        ("unpackedSize", json!(6)),
        ("files", json!({})),
        ("signedAt", json!(null)),
        ("registryRevision", json!(0.5)),
    ] {
        assert_eq!(refused(&|odd| odd[member] = bad.clone()), Some(member), "{member} {bad}");
        let gone = refused(&|odd| drop(odd.as_object_mut().unwrap().shift_remove(member)));
        assert_eq!(gone, Some(member), "no {member}");
    }
    assert_eq!(refused(&|odd| odd["more"] = json!(1)), Some("an unknown member"));
    // The bytes are the ones that were signed: another spelling of the same object is none.
    let signed = Signed::<Manifest>::from_value(&value).unwrap();
    let text = std::str::from_utf8(signed.bytes()).unwrap().replacen(':', ": ", 1);
    let read = Signed::<Manifest>::parse(text.as_bytes(), signed.signatures().to_vec());
    assert_eq!(read.unwrap_err().member, "its spelling");
}

// Proves: GW-77
#[test]
fn tar_safety_of_the_list_of_files() {
    let file = |path: &str| ReleaseFile { path: path.to_owned(), hash: blake3(b""), size: 0, executable: false };
    let list = |paths: &[&str]| check_files(&paths.iter().map(|path| file(path)).collect::<Vec<_>>());
    assert_eq!(list(&["a", "b/c", "b/d", "ä"]), Ok(()));
    assert_eq!(list(&[]), Ok(()));
    for bad in ["/etc/passwd", "../a", "a/../b", "a//b", "a/", "", ".", "a\0b", "a\nb", "a\\b", &"x/".repeat(600)] {
        assert_eq!(list(&[bad]), Err(FilesRefused::Path(bad.to_owned())), "{bad}");
    }
    assert!(matches!(list(&["a", "a"]), Err(FilesRefused::Order(_))), "twice");
    assert!(matches!(list(&["b", "a"]), Err(FilesRefused::Order(_))), "out of order");
    assert!(matches!(list(&["a", "a.b", "a/b"]), Err(FilesRefused::Order(_))), "a file and a directory");
    let huge = ReleaseFile { size: 1 << 53, ..file("a") };
    assert_eq!(check_files(&[huge]), Err(FilesRefused::TooMany));
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), keep in 0usize..400) {
        let mut publisher = Publisher::new(&[1]);
        let manifest = publisher.publish("stable", "1.0.0");
        let good = publisher.bundle(&manifest).encode().unwrap();
        let _ = BundleHead::read(&bytes);
        let mixed: Vec<u8> = good[..keep.min(good.len())].iter().chain(&bytes).copied().collect();
        let _ = BundleHead::read(&mixed);
    }
}
