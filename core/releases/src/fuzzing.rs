//! Bodies of the fuzz targets, shared with the property tests: they panic when a promise is broken.

use serde_json::Value;

use crate::bundle::{BundleHead, ChannelHead, HEAD_BYTES_MAX, Manifest, NotABundle, Signed, Trust};
use crate::{LEGACY_BYTES_MAX, LegacyManifest, LegacyRefused};

/// Any bytes as the begin of a bundle file. What is read is written as the same bytes, and nothing of it counts.
pub fn bundle(input: &[u8]) {
    match BundleHead::read(input) {
        Ok((head, length)) => {
            assert_eq!(head.encode().expect("what was read fits"), input[..length]);
            let value = head.manifest.to_value();
            assert_eq!(Signed::<Manifest>::from_value(&value).as_ref(), Ok(&head.manifest));
        }
        Err(NotABundle::Short) => assert!(input.len() < HEAD_BYTES_MAX),
        Err(_) => {}
    }
}

/// Any text as a trust file, a manifest or a head. A trust that is read is written as one that reads the same.
pub fn documents(input: &[u8]) {
    if let Ok(trust) = Trust::parse(input) {
        let again = Trust::parse(trust.to_value().to_string().as_bytes());
        assert_eq!(again.as_ref(), Ok(&trust));
    }
    let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
    if let Ok(manifest) = Signed::<Manifest>::from_value(&value) {
        assert_eq!(Signed::<Manifest>::from_value(&manifest.to_value()).as_ref(), Ok(&manifest));
    }
    if let Ok(head) = Signed::<ChannelHead>::from_value(&value) {
        assert_eq!(Signed::<ChannelHead>::from_value(&head.to_value()).as_ref(), Ok(&head));
    }
}

/// Any text as a transaction manifest of the older system. What would be signed is a manifest that nobody signed, and reads as itself.
pub fn legacy(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(manifest) = LegacyManifest::read(text) else { return };
    if let Ok(signature) = manifest.signed() {
        assert_eq!(signature.len(), 64);
    }
    // Writing may make numbers longer.
    if manifest.content().len() > LEGACY_BYTES_MAX {
        return;
    }
    let content = LegacyManifest::read(manifest.content()).expect("what is signed is a manifest");
    assert_eq!((content.content(), content.id()), (manifest.content(), manifest.id()));
    assert_eq!(content.signed(), Err(LegacyRefused::NotSigned));
}
