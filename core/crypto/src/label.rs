//! The one message format of every ML-DSA-87 signature of the product. Spec: link C.4.4.

use crate::sha512;

/// What a signature is for. A label outside this table is never signed and never accepted. Spec: link C.4.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// The responder of a link handshake proves its node key.
    LinkResponder,
    /// The initiator of a link handshake proves its node key.
    LinkInitiator,
    /// A node binds its short-lived TLS certificate to itself.
    LinkTlsCert,
    /// A frame of a keystone or of a session keystone.
    KeystoneFrame,
    /// The stone of a local commit.
    CommitStone,
    /// The manifest of a release bundle.
    ReleaseManifest,
    /// The head of a release channel.
    ReleaseHead,
    /// A record of the key ledger, or a rotation signal.
    KeysRotate,
    /// A checkpoint of the audit chain.
    AuditCheckpoint,
}

impl Label {
    /// Every label there is.
    pub const ALL: [Self; 9] = [
        Self::LinkResponder,
        Self::LinkInitiator,
        Self::LinkTlsCert,
        Self::KeystoneFrame,
        Self::CommitStone,
        Self::ReleaseManifest,
        Self::ReleaseHead,
        Self::KeysRotate,
        Self::AuditCheckpoint,
    ];

    /// The text that is signed, ASCII, at most 32 bytes.
    pub const fn text(self) -> &'static str {
        match self {
            Self::LinkResponder => "link1 responder",
            Self::LinkInitiator => "link1 initiator",
            Self::LinkTlsCert => "link1 tls-cert",
            Self::KeystoneFrame => "keystone1 frame",
            Self::CommitStone => "commit1 stone",
            Self::ReleaseManifest => "release1 manifest",
            Self::ReleaseHead => "release1 head",
            Self::KeysRotate => "keys1 rotate",
            Self::AuditCheckpoint => "audit1 checkpoint",
        }
    }
}

/// The 112 bytes that are signed for `content` under `label`:
/// `"sealtide-sig-v1" 00 (16) ‖ label zero-padded to 32 ‖ SHA-512(content) (64)`. Spec: link C.4.4.
pub fn signed_message(label: Label, content: &[u8]) -> [u8; 112] {
    let mut message = [0u8; 112];
    message[..15].copy_from_slice(b"sealtide-sig-v1");
    let text = label.text().as_bytes();
    message[16..16 + text.len()].copy_from_slice(text);
    message[48..].copy_from_slice(&sha512(content));
    message
}

/// What the gateway signs with Ed25519 alone. Such a signature is classical and is never taken for one of [`Label`].
/// Spec: gateway §7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GatewayContext {
    /// The answer to a bump; the payload is the array `bumped` as it was sent.
    Bump,
    /// The registry of an app; the payload is its envelope in RFC 8785 form.
    Registry,
    /// The manifest of a file bump; the payload is its RFC 8785 form without `signature`.
    Manifest,
}

impl GatewayContext {
    /// Every context there is.
    pub const ALL: [Self; 3] = [Self::Bump, Self::Registry, Self::Manifest];

    /// The text that is signed.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Bump => "bump",
            Self::Registry => "registry",
            Self::Manifest => "manifest",
        }
    }
}

/// `"sealtide-gw-sig-v1" 00 ‖ context ‖ 00 ‖ payload`. Spec: gateway §7.3.
pub(crate) fn gateway_message(context: GatewayContext, payload: &[u8]) -> Vec<u8> {
    [b"sealtide-gw-sig-v1\0", context.text().as_bytes(), b"\0", payload].concat()
}
