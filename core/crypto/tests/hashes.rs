//! Known answers of the hashes and keyed hashes.

use sealtide_crypto::{
    DeriveContext, Entropy, SeededEntropy, Sha256, blake3, blake3_derive, ct_eq, hkdf_expand_sha256,
    hkdf_extract_sha256, hmac_sha256, sha256, sha256_parts, sha512,
};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits")).collect()
}

#[test]
fn known_answers() {
    let abc_256 = hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(sha256(b"abc").to_vec(), abc_256);
    assert_eq!(sha256_parts(&[b"a", b"", b"bc"]).to_vec(), abc_256);
    let mut pieces = Sha256::new();
    pieces.update(b"ab");
    pieces.update(b"c");
    assert_eq!(pieces.finish().to_vec(), abc_256);
    assert_eq!(sha512(b"abc")[..8].to_vec(), hex("ddaf35a193617aba"));
    assert_eq!(blake3(b"").to_vec(), hex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"));
    let mut derived = [0; 48];
    blake3_derive("sealtide test", b"x", &mut derived);
    let mut again = derived;
    again.fill(0);
    DeriveContext::of("sealtide test").derive(b"x", &mut again);
    assert_eq!(again, derived, "a context that was hashed before");
    let mut shorter = [0; 16];
    blake3_derive("sealtide test", b"x", &mut shorter);
    assert_eq!(derived[..16], shorter, "a longer output begins with the shorter one");
}

/// RFC 4231, case 2.
#[test]
fn hmac_known_answer() {
    let expected = hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!(hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]).to_vec(), expected);
}

/// RFC 5869, case 1.
#[test]
fn hkdf_known_answer() {
    let prk = hkdf_extract_sha256(&hex("000102030405060708090a0b0c"), &[0x0b; 22]);
    assert_eq!(prk.to_vec(), hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"));
    let okm = hkdf_expand_sha256(&prk, &[&hex("f0f1f2f3f4"), &hex("f5f6f7f8f9")]);
    assert_eq!(okm.to_vec(), hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"));
}

#[test]
fn equality_and_chance() {
    assert!(ct_eq(b"same", b"same") && !ct_eq(b"same", b"sane") && !ct_eq(b"same", b"same ") && ct_eq(b"", b""));
    let draw = |seed| {
        let mut bytes = [0; 40];
        SeededEntropy::new(seed).fill(&mut bytes);
        bytes
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}
