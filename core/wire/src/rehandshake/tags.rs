//! What the tags and the next secret are made from. Spec: link C.8.

use sealtide_crypto::{hkdf_expand_sha256, hkdf_extract_sha256, hmac_sha256, sha256, sha256_parts};
use sealtide_identity::NodeId;
use zeroize::{Zeroize, Zeroizing};

use crate::frame::FrameType;
use crate::handshake::{Binding, Exporter, ResumeSecret};

/// The label of what a TLS connection adds to the ratchet.
const LABEL_RATCHET: &str = "EXPORTER-sealtide-ratchet-v1";

/// A key for tags of one end in one epoch; wiped.
pub(super) type TagKey = Zeroizing<[u8; 32]>;

/// The key of the dialler's tags.
pub(super) fn dialler_key(secret: &ResumeSecret) -> TagKey {
    attach_key(secret, 1)
}

/// The key of the listener's tag.
pub(super) fn listener_key(secret: &ResumeSecret) -> TagKey {
    attach_key(secret, 2)
}

fn attach_key(secret: &ResumeSecret, end: u8) -> TagKey {
    Zeroizing::new(hkdf_expand_sha256(secret.expose(), &[b"sealtide-link-v1 attach", &[end]]))
}

/// What every tag on one connection covers: the TLS connection and who is who.
#[derive(Clone, Debug)]
pub(super) struct Context(Vec<u8>);

impl Context {
    pub(super) fn new(binding: &Binding, dialler: &NodeId, listener: &NodeId) -> Self {
        let parts = [binding.cb(), binding.fp_client(), binding.fp_server(), dialler.as_bytes(), listener.as_bytes()];
        Self(parts.map(<[u8; 32]>::as_slice).concat())
    }

    /// Tag 30.
    pub(super) fn request(&self, key: &TagKey, untagged: &[u8]) -> [u8; 32] {
        hmac_sha256(&key[..], &[&[FrameType::RehandshakeRequest.code()], &self.0, untagged])
    }

    /// Tag 31.
    pub(super) fn response(&self, key: &TagKey, request: &[u8], untagged: &[u8]) -> [u8; 32] {
        hmac_sha256(&key[..], &[&[FrameType::RehandshakeResponse.code()], &self.0, &sha256(request), untagged])
    }

    /// Tag 32.
    pub(super) fn complete(&self, key: &TagKey, request: &[u8], response: &[u8], untagged: &[u8]) -> [u8; 32] {
        let code = [FrameType::RehandshakeComplete.code()];
        hmac_sha256(&key[..], &[&code, &self.0, &sha256(request), &sha256(response), untagged])
    }
}

/// The secret of the next epoch: the present one and a fresh secret of this TLS connection.
pub(super) fn next_secret(
    secret: &ResumeSecret,
    exporter: &dyn Exporter,
    request: &[u8],
    response: &[u8],
) -> ResumeSecret {
    let mut fresh = exporter.export(LABEL_RATCHET, &sha256_parts(&[request, response]));
    let next = ResumeSecret::new(hkdf_extract_sha256(secret.expose(), &fresh));
    fresh.zeroize();
    next
}
