//! The 32-byte ids of nodes and spaces.

use std::fmt;
use std::str::FromStr;

use sealtide_crypto::{PublicKey, sha256_parts};

use crate::text::{TextError, decode_text, encode_text};

/// The algorithm byte of ML-DSA-87 in a node id. Spec: link C.3.
const ALG_ML_DSA_87: u8 = 1;

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The prefix of the text form.
            pub const PREFIX: &'static str = $prefix;

            /// Takes the 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first 8 characters after the prefix: for logs and file names, never accepted as input.
            pub fn short(&self) -> String {
                self.to_string()[Self::PREFIX.len()..Self::PREFIX.len() + 8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode_text(Self::PREFIX, &self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}…", Self::PREFIX, self.short())
            }
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                let bytes = decode_text(Self::PREFIX, text)?;
                let bytes = bytes.try_into().map_err(|_| TextError::Typing { expected: Self::PREFIX })?;
                Ok(Self(bytes))
            }
        }
    };
}

id32!(
    /// Who a node is: the hash of its ML-DSA-87 public key. Text form `stn1…`, 62 characters. Spec: link C.3.
    NodeId,
    "stn1"
);
id32!(
    /// Which space: the hash of the first frame of its `space` timeline. Text form `sts1…`. Spec: ibgib §12.5.
    SpaceId,
    "sts1"
);

impl NodeId {
    /// The id of the node that holds `key`: SHA-256("sealtide-node-id-v1" ‖ 00 ‖ 01 ‖ key). Spec: link C.3.
    pub fn of(key: &PublicKey) -> Self {
        Self(sha256_parts(&[b"sealtide-node-id-v1", &[0, ALG_ML_DSA_87], key.as_bytes()]))
    }
}
