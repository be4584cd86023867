//! Certificates of a peer: checked, pinned, renewed in a running session. Spec: link C.7.

use sealtide_crypto::{Label, Now, PublicKey, SIGNATURE_BYTES, SigningKey, ct_eq, sha256};
use sealtide_identity::{NodeId, ReadError, Reader};

use super::signed::{CertificateScope, Side};
use super::{
    CERTIFICATE_BYTES_MAX, CERTIFICATE_SECONDS_MAX, CertificateCheck, CertificateFacts, CertificateRejected,
    Established, Pin,
};

/// Pins of one session at one time.
const PINS_MAX: usize = 2;

/// A certificate as ESTABLISHED and CERT_UPDATE carry it: all zeros and empty on kind 3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CertificatePart {
    pub(super) epoch: u32,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    pub(super) fingerprint: [u8; 32],
    pub(super) der: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// Why the certificate of a peer is not pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The bytes break the layout.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The certificate breaks a rule.
    #[error(transparent)]
    Certificate(#[from] CertificateRejected),
    /// It is not signed by the peer for this session, side and audience.
    #[error("the signature does not verify")]
    BadProof,
    /// Its number is not greater than every one before.
    #[error("epoch {found} after epoch {last}")]
    OldEpoch {
        /// What it says.
        found: u32,
        /// The greatest so far.
        last: u32,
    },
}

impl CertificatePart {
    /// The certificate `facts`, signed for `scope`.
    pub(super) fn signed(key: &SigningKey, epoch: u32, facts: &CertificateFacts, scope: &CertificateScope) -> Self {
        let CertificateFacts { fingerprint, not_before, not_after, der } = facts;
        let content = scope.content(epoch, *not_before, *not_after, fingerprint);
        Self {
            epoch,
            not_before: *not_before,
            not_after: *not_after,
            fingerprint: *fingerprint,
            der: der.clone(),
            signature: key.sign(Label::LinkTlsCert, &content).as_bytes().to_vec(),
        }
    }

    /// Checks everything that must hold before the certificate is pinned, and pins it. Spec: LK-16, LK-50.
    pub(super) fn verify(
        &self,
        scope: &CertificateScope,
        key: &PublicKey,
        certificates: &dyn CertificateCheck,
    ) -> Result<Pin, PinError> {
        let Self { epoch, not_before, not_after, fingerprint, der, signature } = self;
        if der.is_empty() || !ct_eq(fingerprint, &sha256(der)) {
            return Err(CertificateRejected("the fingerprint is not that of the certificate").into());
        }
        if certificates.dates(der)? != (*not_before, *not_after) {
            return Err(CertificateRejected("dates unlike those in the certificate").into());
        }
        let lifetime_seconds = not_after.checked_sub(*not_before).filter(|seconds| *seconds > 0);
        let lifetime_seconds = lifetime_seconds.ok_or(CertificateRejected("ends before it begins"))?;
        if lifetime_seconds > CERTIFICATE_SECONDS_MAX {
            return Err(CertificateRejected("lives longer than 24 h 10 min").into());
        }
        let content = scope.content(*epoch, *not_before, *not_after, fingerprint);
        key.verify(Label::LinkTlsCert, &content, signature).map_err(|_| PinError::BadProof)?;
        Ok(Pin { fingerprint: *fingerprint, epoch: *epoch, lifetime_seconds })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.not_before.to_be_bytes());
        out.extend_from_slice(&self.not_after.to_be_bytes());
        out.extend_from_slice(&self.fingerprint);
        out.extend_from_slice(&(self.der.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.der);
        out.extend_from_slice(&(self.signature.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.signature);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        Ok(Self {
            epoch: reader.u32()?,
            not_before: reader.u64()?,
            not_after: reader.u64()?,
            fingerprint: reader.array()?,
            der: reader.var16(CERTIFICATE_BYTES_MAX)?.to_vec(),
            signature: reader.var16(SIGNATURE_BYTES)?.to_vec(),
        })
    }
}

/// The certificates of the peer that the paths of one session may show, each until its time is over. At most two: the
/// present one and its successor. Lives in memory, ends by the monotonic clock alone.
// Spec: LK-12, LK-50
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    pins: Vec<(Pin, u64)>,
    last: u32,
}

impl Pins {
    /// The set with the one pin of a full handshake.
    pub fn new(now: Now, pin: Pin) -> Self {
        Self { pins: vec![(pin, end_of(now, &pin))], last: pin.epoch }
    }

    /// Takes the pin of a CERT_UPDATE; of three the one with the least epoch goes.
    ///
    /// # Errors
    /// [`PinError::OldEpoch`]: the peer broke a rule, the session ends with ABORT 10.
    pub fn add(&mut self, now: Now, pin: Pin) -> Result<(), PinError> {
        if pin.epoch <= self.last {
            return Err(PinError::OldEpoch { found: pin.epoch, last: self.last });
        }
        self.last = pin.epoch;
        self.pins.push((pin, end_of(now, &pin)));
        if self.pins.len() > PINS_MAX {
            self.pins.remove(0);
        }
        Ok(())
    }

    /// Whether a path may show the certificate with this fingerprint now.
    pub fn holds(&self, now: Now, fingerprint: &[u8; 32]) -> bool {
        self.end_of(fingerprint).is_some_and(|end| now.mono_ms < end)
    }

    /// When the pin of this certificate ends, on the monotonic clock in ms.
    pub fn end_of(&self, fingerprint: &[u8; 32]) -> Option<u64> {
        self.pins.iter().find(|(pin, _)| pin.fingerprint == *fingerprint).map(|(_, end)| *end)
    }

    /// When the last of them ends, on the monotonic clock in ms. Spec: link C.6, `pin_end`.
    pub fn end(&self) -> u64 {
        self.pins.iter().map(|(_, end)| *end).max().unwrap_or(0)
    }
}

fn end_of(now: Now, pin: &Pin) -> u64 {
    now.mono_ms.saturating_add(pin.lifetime_seconds.saturating_mul(1000))
}

/// What the certificates in CERT_UPDATE are signed for, as long as the session lives: those of the full handshake that
/// created it, whatever paths and handshakes followed.
#[derive(Clone, Debug)]
pub struct CertificateTalk {
    session_id: [u8; 16],
    sb: [u8; 32],
    own: NodeId,
    own_side: Side,
    peer: NodeId,
    peer_side: Side,
    peer_key: PublicKey,
}

impl CertificateTalk {
    /// Of the session that `established` made; `own` is this node.
    pub fn new(own: NodeId, established: &Established) -> Self {
        let (own_side, peer_side) = match established.initiator {
            true => (Side::Initiator, Side::Responder),
            false => (Side::Responder, Side::Initiator),
        };
        Self {
            session_id: established.session_id,
            sb: established.sb,
            own,
            own_side,
            peer: established.peer,
            peer_side,
            peer_key: established.peer_key.clone(),
        }
    }

    /// The payload of the CERT_UPDATE that announces the certificate `facts` of this node, whose key is `key`.
    pub fn announce(&self, key: &SigningKey, epoch: u32, facts: &CertificateFacts) -> Vec<u8> {
        let scope = CertificateScope {
            session_id: self.session_id,
            side: self.own_side,
            signer: self.own,
            audience: self.peer,
            sb: self.sb,
        };
        let mut payload = Vec::new();
        CertificatePart::signed(key, epoch, facts, &scope).write(&mut payload);
        payload
    }

    /// Checks the payload of the peer's CERT_UPDATE; the pin is to be added to the [`Pins`].
    ///
    /// # Errors
    /// [`PinError`]: the session ends with ABORT 10.
    pub fn check(&self, payload: &[u8], certificates: &dyn CertificateCheck) -> Result<Pin, PinError> {
        let part = read_update(payload)?;
        let scope = CertificateScope {
            session_id: self.session_id,
            side: self.peer_side,
            signer: self.peer,
            audience: self.own,
            sb: self.sb,
        };
        part.verify(&scope, &self.peer_key, certificates)
    }
}

/// Checks the layout of the payload of CERT_UPDATE, and nothing else; for fuzzing.
///
/// # Errors
/// [`PinError::Malformed`].
pub fn check_update_layout(payload: &[u8]) -> Result<(), PinError> {
    read_update(payload).map(|_| ())
}

fn read_update(payload: &[u8]) -> Result<CertificatePart, PinError> {
    let malformed = |error: ReadError| PinError::Malformed(error.rule());
    let mut reader = Reader::new(payload);
    let part = CertificatePart::read(&mut reader).map_err(malformed)?;
    reader.end().map_err(malformed)?;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(epoch: u32, lifetime_seconds: u64) -> Pin {
        Pin { fingerprint: [epoch as u8; 32], epoch, lifetime_seconds }
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    // Proves: LK-50
    #[test]
    fn cert_rules_of_pins() {
        let mut pins = Pins::new(at(1_000), pin(3, 10));
        assert!(pins.holds(at(10_999), &[3; 32]));
        assert!(!pins.holds(at(11_000), &[3; 32]), "ends by duration");
        assert!(!pins.holds(at(1_000), &[4; 32]));
        for epoch in [1, 3] {
            assert_eq!(pins.add(at(2_000), pin(epoch, 10)), Err(PinError::OldEpoch { found: epoch, last: 3 }));
        }
        pins.add(at(2_000), pin(5, 10)).unwrap();
        assert!(pins.holds(at(3_000), &[3; 32]) && pins.holds(at(3_000), &[5; 32]));
        assert_eq!(pins.end(), 12_000);
        pins.add(at(4_000), pin(6, 10)).unwrap();
        assert!(!pins.holds(at(5_000), &[3; 32]), "of three the least epoch goes");
        assert!(pins.holds(at(5_000), &[5; 32]) && pins.holds(at(5_000), &[6; 32]));
        assert!(pins.add(at(5_000), pin(4, 10)).is_err(), "a number that was passed over does not come back");
        assert_eq!(pins.end_of(&[6; 32]), Some(14_000));
    }

    // Proves: LK-12
    #[test]
    fn pins_know_no_wall_clock() {
        let year_ms = 365 * 86_400_000;
        for wall_ms in [0, year_ms, 10 * year_ms] {
            let now = |mono_ms, wall_ms| Now { mono_ms, wall_ms };
            let mut pins = Pins::new(now(0, wall_ms), pin(1, 100));
            pins.add(now(50_000, wall_ms + year_ms), pin(2, 100)).unwrap();
            assert!(pins.holds(now(99_999, wall_ms.saturating_sub(year_ms)), &[1; 32]));
            assert!(!pins.holds(now(100_000, wall_ms), &[1; 32]));
            assert!(pins.holds(now(149_999, wall_ms + 5 * year_ms), &[2; 32]));
        }
    }
}
