//! The line of revisions of an app as others read it: one writer, one successor, each signed. Spec: gateway §8.1.
//!
//! ```text
//! first frame ──names──▶ writer and ledger ──sign──▶ the next frame, which may name another writer and ledger, and so on
//! ```
//!
//! Who holds the frames looks which follow which; here it is said whether one of them counts where it stands.

use sealtide_crypto::{Ed25519PublicKey, GatewayContext};
use sealtide_ibgib::Object;
use sealtide_identity::NodeId;
use sealtide_identity::keyring::{Algorithm, KeyVersion, decode_signature};

use crate::{ImportError, Registry};

/// Who makes the next frame: the node, and the key ledger that its signatures are looked up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The node.
    pub node: NodeId,
    /// Address of the first frame of its key ledger.
    pub ledger: String,
}

/// One frame as it was read: nothing of it is proven.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryFrame {
    /// The app.
    pub app: String,
    /// Who makes the frame after it.
    pub writer: Writer,
    /// All entities, at the revision that the frame says.
    pub registry: Registry,
    /// The version that is said to have signed it.
    pub signed_by: KeyVersion,
    /// Base64.
    pub signature: String,
}

/// What holds after a frame that counts: all that the next one is measured by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The app.
    pub app: String,
    /// Who makes the next frame.
    pub writer: Writer,
    /// Its revision.
    pub revision: u64,
}

/// Why a frame does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineRefused {
    /// A member is missing or of another type.
    #[error("it is no frame of a registry: {0}")]
    Form(&'static str),
    /// Its entities are no registry.
    #[error("{0}")]
    Entities(#[from] ImportError),
    /// It is about another app.
    #[error("it is about another app")]
    App,
    /// Its revision is not the next one.
    #[error("it says revision {found}, and {wanted} is next")]
    Revision {
        /// What it says.
        found: u64,
        /// What would be next.
        wanted: u64,
    },
    /// The writer's ledger is not here, or does not name the version.
    #[error("the key {0} of its writer is not known")]
    Key(KeyVersion),
    /// Its signature is not one of the writer.
    #[error("the writer did not sign it")]
    Signature,
}

impl RegistryFrame {
    /// Reads the data of a frame.
    ///
    /// # Errors
    /// [`LineRefused::Form`] and [`LineRefused::Entities`].
    pub fn read(data: &Object) -> Result<Self, LineRefused> {
        let text = |name: &'static str| {
            data.get(name).and_then(|value| value.as_str()).map(str::to_owned).ok_or(LineRefused::Form(name))
        };
        let revision = data.get("revision").and_then(|value| value.as_u64()).ok_or(LineRefused::Form("revision"))?;
        let entities = data.get("entities").ok_or(LineRefused::Form("entities"))?;
        Ok(Self {
            app: text("app")?,
            writer: Writer {
                node: text("writer")?.parse().map_err(|_| LineRefused::Form("writer"))?,
                ledger: text("ledger")?,
            },
            registry: Registry::read(entities.to_string().as_bytes(), revision)?,
            signed_by: KeyVersion::parse(&text("signedBy")?).ok_or(LineRefused::Form("signedBy"))?,
            signature: text("registrySignature")?,
        })
    }

    /// What holds after it, as the first frame of an app: signed by the writer that it names.
    ///
    /// # Errors
    /// [`LineRefused`].
    // Spec: GW-108
    pub fn begin(
        &self,
        key: impl FnOnce(&Writer, KeyVersion) -> Option<Ed25519PublicKey>,
    ) -> Result<Standing, LineRefused> {
        self.check(&self.writer, key)
    }

    /// What holds after it, as the frame after `before`: signed by the writer that holds then, whomever it names itself.
    ///
    /// # Errors
    /// [`LineRefused`].
    // Spec: GW-108
    pub fn after(
        &self,
        before: &Standing,
        key: impl FnOnce(&Writer, KeyVersion) -> Option<Ed25519PublicKey>,
    ) -> Result<Standing, LineRefused> {
        if self.app != before.app {
            return Err(LineRefused::App);
        }
        let (found, wanted) = (self.registry.revision(), before.revision + 1);
        if found != wanted {
            return Err(LineRefused::Revision { found, wanted });
        }
        self.check(&before.writer, key)
    }

    fn check(
        &self,
        signer: &Writer,
        key: impl FnOnce(&Writer, KeyVersion) -> Option<Ed25519PublicKey>,
    ) -> Result<Standing, LineRefused> {
        let key = key(signer, self.signed_by).ok_or(LineRefused::Key(self.signed_by))?;
        let writer = self.writer.node.to_string();
        let envelope = self.registry.envelope(&self.app, &writer, &self.writer.ledger).ok_or(LineRefused::Signature)?;
        let signature = decode_signature(Algorithm::Ed25519, &self.signature).ok_or(LineRefused::Signature)?;
        let verified = key.verify_alone(GatewayContext::Registry, envelope.as_bytes(), &signature);
        verified.map_err(|_| LineRefused::Signature)?;
        let (app, revision) = (self.app.clone(), self.registry.revision());
        Ok(Standing { app, writer: self.writer.clone(), revision })
    }
}
