//! Addresses `ib^gib` and the ids derived from records. Spec: ibgib §1.2, §12.2.

use std::fmt;
use std::sync::Arc;

use sealtide_crypto::sha256;

/// A valid address `ib^gib`. Cheap to clone. Compared and ordered by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

impl Address {
    /// Checks and takes an address: valid by §1.3.
    ///
    /// # Errors
    /// [`AddressError`] with the first rule that is broken.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let _ = text;
        todo!()
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the last `^`.
    pub fn ib(&self) -> &str {
        self.0.rsplit_once('^').map_or("", |(ib, _)| ib)
    }

    /// The part after the last `^`.
    pub fn gib(&self) -> &str {
        self.0.rsplit_once('^').map_or(&self.0, |(_, gib)| gib)
    }

    /// Whether the gib is the literal `gib`: no integrity, no record.
    pub fn is_primitive(&self) -> bool {
        self.gib() == "gib"
    }

    /// SHA-256 of the text: the timeline id when this is the address of a first frame. Spec: ibgib §13.2.
    pub fn timeline_id(&self) -> TimelineId {
        TimelineId(sha256(self.0.as_bytes()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no valid address; [`AddressError::code`] gives the code of ibgib §1.3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad address: {code}")]
pub struct AddressError {
    code: &'static str,
}

impl AddressError {
    /// The code of ibgib §1.3, `gib_bad_hash` for instance.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

macro_rules! hash32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

hash32!(
    /// The strong id of a record: equal sid means equal bytes. Spec: ibgib §12.2.
    Sid
);
hash32!(
    /// The id of a timeline on the wire: SHA-256 of the address of its first frame. Spec: ibgib §13.2.
    TimelineId
);
