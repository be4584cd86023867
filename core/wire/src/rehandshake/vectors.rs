//! The checked-in re-handshake: fixed secrets, nonces and exporters, every byte compared. The tags are computed once
//! more from the words of the specification. `SEALTIDE_WRITE_VECTORS=1` writes the file anew. Spec: LK-30.

use sealtide_crypto::{SeededEntropy, hkdf_expand_sha256, hkdf_extract_sha256, hmac_sha256, sha256};
use serde_json::{Value, json};

use super::checks::{Tls, pair};
use super::*;
use crate::handshake::Exporter;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/link/rehandshake.json");
const TLS: Tls = Tls(5);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("a string of hex digits");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn played() -> Value {
    let [mut d, mut l] = pair();
    let (mut near, mut far) = (SeededEntropy::new(1), SeededEntropy::new(2));
    let (mut dialler, request) = Dialler::start(&mut d, &TLS.binding(), 0x0102, &mut near).unwrap();
    let read = Request::read(&request).unwrap();
    let (listener, response) = Listener::answer(&mut l, &TLS.binding(), &read, 0x0304, &TLS, &mut far).unwrap();
    let step = dialler.handle(&mut d, &response, &TLS, &|next| next + 1, &mut near).unwrap();
    let DialStep::Done { complete, .. } = step else { panic!("{step:?}") };
    listener.complete(&mut l, &complete).unwrap();
    assert_eq!(d.secret, l.secret);
    json!({
        "format": "sealtide-link-rehandshake-1",
        "rs_0": hex(&[7; 32]),
        "cb": hex(&TLS.export("cb", b"")),
        "fp_client": hex(&[0xC1; 32]),
        "fp_server": hex(&[0x51; 32]),
        "node_id_dialler": hex(&[1; 32]),
        "node_id_listener": hex(&[2; 32]),
        "session_id": hex(&[9; 16]),
        "request": hex(&request),
        "response": hex(&response),
        "complete": hex(&complete),
        "exporter_context": hex(&sha256(&[&request[8..], &response[8..]].concat())),
        "exporter": hex(&TLS.export("EXPORTER-sealtide-ratchet-v1", &sha256(&[&request[8..], &response[8..]].concat()))),
        "rs_1": hex(d.secret.expose()),
        "rejects": RejectCode::ALL.map(|code| hex(&code.frame())),
    })
}

// Proves: LK-30
#[test]
fn rehandshake_vectors() {
    let played = played();
    #[expect(clippy::disallowed_methods, reason = "tests are told by the environment to write their vector")]
    if std::env::var("SEALTIDE_WRITE_VECTORS").is_ok() {
        std::fs::write(PATH, serde_json::to_string_pretty(&played).unwrap() + "\n").unwrap();
    }
    #[expect(clippy::disallowed_methods, reason = "a test reads its vector")]
    let text = std::fs::read(PATH).expect("vectors/link/rehandshake.json");
    let file: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(file, played);

    let field = |name: &str| bytes(&file[name]);
    let (request, response, complete) = (field("request"), field("response"), field("complete"));
    assert_eq!([request.len(), response.len(), complete.len()], [8 + 98, 8 + 98, 8 + 61]);
    assert_eq!((&request[..8], &response[..4]), (&[0x30, 0, 0, 0, 0, 0, 0, 98][..], &[0x31, 0, 0, 0][..]));
    // session_id | epoch | path_id | kind | flags | nonce | rx_next | tag
    assert_eq!(request[8..24], [9; 16]);
    assert_eq!(request[24..34], [0, 0, 0, 0, 0, 0, 0, 1, 2, 0]);
    assert_eq!(request[66..74], 0x0102u64.to_be_bytes());
    assert_eq!(response[24..34], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(response[66..74], 0x0304u64.to_be_bytes());
    // session_id | path_id | role | tx_from | tag
    assert_eq!(complete[24..37], [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 3, 5]);

    let rs: [u8; 32] = field("rs_0").try_into().unwrap();
    let context: Vec<u8> =
        ["cb", "fp_client", "fp_server", "node_id_dialler", "node_id_listener"].iter().flat_map(|n| field(n)).collect();
    let k_d = hkdf_expand_sha256(&rs, &[b"sealtide-link-v1 attach", &[1]]);
    let k_l = hkdf_expand_sha256(&rs, &[b"sealtide-link-v1 attach", &[2]]);
    let (of_30, of_31) = (sha256(&request[8..]), sha256(&response[8..]));
    assert_eq!(hmac_sha256(&k_d, &[&[0x30], &context, &request[8..74]]), request[74..]);
    assert_eq!(hmac_sha256(&k_l, &[&[0x31], &context, &of_30, &response[8..74]]), response[74..]);
    assert_eq!(hmac_sha256(&k_d, &[&[0x32], &context, &of_30, &of_31, &complete[8..37]]), complete[37..]);
    assert_eq!(hkdf_extract_sha256(&rs, &field("exporter")), *field("rs_1"));
    assert_eq!(bytes(&file["rejects"][1]), [0x33, 0, 0, 0, 0, 0, 0, 6, 0, 2, 0, 0, 0, 0]);
}
