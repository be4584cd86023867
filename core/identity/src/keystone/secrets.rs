//! The secrets behind keystones: typed, wiped when dropped, never shown. Spec: ibgib §12.3, §12.4.

use std::fmt;

use sealtide_crypto::{Entropy, SEED_BYTES, Seed, hkdf_sha512};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

// Spec: SY-30
macro_rules! secret32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Draws a new one.
            pub fn generate(entropy: &mut dyn Entropy) -> Self {
                let mut bytes = [0; 32];
                entropy.fill(&mut bytes);
                let secret = Self(bytes);
                bytes.zeroize();
                secret
            }

            /// Takes over stored bytes.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The secret bytes.
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }
    };
}

secret32!(
    /// The root secret of an owner: pools `manage` and `revoke` come from it. Shown once as words, never stored.
    RootSecret
);
secret32!(
    /// The working secret in the key file: all other pools come from it.
    WorkingSecret
);
secret32!(
    /// The secret of one session keystone.
    SessionSecret
);

/// What V1 calls the master secret: the text that the pools of one keystone are derived from.
#[derive(Clone, Default)]
pub struct MasterSecret(Zeroizing<String>);

impl MasterSecret {
    fn of(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(data_encoding::HEXLOWER.encode(bytes)))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for MasterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterSecret(secret)")
    }
}

impl RootSecret {
    /// The master secret of pools `manage` and `revoke` of the keystone with this uuid.
    pub fn master(&self, uuid: &str) -> MasterSecret {
        MasterSecret::of(&Zeroizing::new(hkdf_sha512(&self.0, b"sealtide/root/1", uuid.as_bytes())))
    }
}

impl WorkingSecret {
    /// The master secret of the other pools of the keystone with this uuid.
    pub fn master(&self, uuid: &str) -> MasterSecret {
        MasterSecret::of(&Zeroizing::new(hkdf_sha512(&self.0, b"sealtide/working/1", uuid.as_bytes())))
    }

    /// The secret of the session keystone with this session id (32 random bytes of its holder). Spec: ibgib §12.4.
    pub fn session(&self, session_id: &[u8; 32]) -> SessionSecret {
        SessionSecret(hkdf_sha512(&self.0, b"sealtide/session/1", session_id))
    }
}

impl SessionSecret {
    /// The master secret of pool `connect`.
    pub fn master(&self) -> MasterSecret {
        MasterSecret::of(&self.0)
    }

    /// The seed of the session's ML-DSA-87 key, so that a crash does not orphan the session.
    pub fn key_seed(&self) -> Seed {
        // The holder's text form is the key material, as it is the master secret.
        let ikm = self.master();
        let mut seed: [u8; SEED_BYTES] = hkdf_sha512(ikm.expose().as_bytes(), b"sealtide/session-key/1", b"");
        let typed = Seed::from_bytes(seed);
        seed.zeroize();
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: SY-30
    #[test]
    fn no_secret_shows_itself() {
        let (root, working) = (RootSecret::from_bytes([0xAB; 32]), WorkingSecret::from_bytes([0xAB; 32]));
        let session = working.session(&[1; 32]);
        let shown = format!("{root:?} {working:?} {session:?} {:?} {:?}", root.master("u"), session.key_seed());
        assert_eq!(
            shown,
            "RootSecret(secret) WorkingSecret(secret) SessionSecret(secret) MasterSecret(secret) Seed(secret)"
        );
    }

    // Proves: SY-30
    #[test]
    fn secrets_are_wiped() {
        let mut root = RootSecret::from_bytes([0xAB; 32]);
        root.zeroize();
        assert_eq!(root.expose(), &[0; 32]);
        assert!(std::mem::needs_drop::<RootSecret>() && std::mem::needs_drop::<MasterSecret>());
    }

    #[test]
    fn every_derivation_has_its_own_domain() {
        let bytes = [7; 32];
        let (root, working) = (RootSecret::from_bytes(bytes), WorkingSecret::from_bytes(bytes));
        let texts = [
            root.master("u"),
            root.master("v"),
            working.master("u"),
            working.session(&[1; 32]).master(),
            working.session(&[2; 32]).master(),
        ];
        let different: std::collections::BTreeSet<&str> = texts.iter().map(MasterSecret::expose).collect();
        assert_eq!(different.len(), texts.len());
        assert!(different.iter().all(|text| super::super::text::is_hex(text, 64)));
    }
}
