//! What the fuzz targets and their twins in the tests run: nothing here may panic, whatever the input.

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_ibgib::Address;

use crate::message::HelloIdentity;
use crate::negentropy::{Difference, Run, reconcile_client, reconcile_server};
use crate::{Control, ControlInput, Message, OwnIdentity};

/// One message of `sts/1`: decoded, written again, and handed to a control machine.
///
/// # Panics
/// When a message has two spellings.
pub fn message(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(message) = Message::decode(&bytes) {
        // ABORT may have a code of a later version, which is not kept.
        let kept = !matches!(message, Message::Unknown(_) | Message::Abort { .. });
        assert!(!kept || message.encode() == bytes, "a message with two spellings");
    }
    let now = Now { mono_ms: 0, wall_ms: 0 };
    let mut control = Control::new(1);
    control.handle(now, ControlInput::Start);
    control.handle(now, ControlInput::Message(bytes.clone()));
    while control.poll().is_some() {}
    // And to one in the middle of connect.
    let Ok(keystone) = Address::parse("a^gib") else { return };
    let own = OwnIdentity { keystone: keystone.clone(), owner: None, known: None };
    let identity = HelloIdentity { keystone: Some(keystone), ..HelloIdentity::default() };
    let hello = Message::Hello { versions: vec![1], features: 1, max_sagas: 1, identity };
    let mut control = Control::with_identity(1, own, [0; 32]);
    control.handle(now, ControlInput::Start);
    for message in [hello.encode(), Message::Challenge([0; 32]).encode(), bytes] {
        control.handle(now, ControlInput::Message(message));
    }
    while control.poll().is_some() {}
}

/// One negentropy message, as server and as client.
///
/// # Panics
/// When an answer is larger than a message may be.
pub fn negentropy(input: &[u8]) {
    let run = Run::new((0u64..200).map(|n| (n % 7, sealtide_crypto::sha256(&n.to_be_bytes()))).collect());
    if let Ok(answer) = reconcile_server(&run, input) {
        assert!(answer.len() < 1_010_000, "an answer of {} bytes", answer.len());
    }
    // Whether it is an answer or not, the client must take it.
    let _ = reconcile_client(&run, input, &mut Difference::default(), 50);
}
