//! When a context is signed: what one side knows of the sagas of one space on one connection, and the rule over it.
//! Spec: ibgib §12.4, SY-33

use sealtide_crypto::{Now, Sha256};

/// Completed sagas since the last signed one after which the next that brings something new is signed.
pub(super) const UNSIGNED_SAGAS_MAX: u64 = 1024;
/// Milliseconds since the last signed one after which the same holds.
pub(super) const UNSIGNED_MS_MAX: u64 = 600_000;
/// How much later than the opener's own limits the answerer says `auth`.
const PATIENCE: u64 = 2;

/// The sagas of one space on one connection, in the order in which they completed. Equal at both ends but for the time.
///
/// A new connection begins a new one. A saga completes with its COMMIT_ACK, whatever the stores say afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    chain: [u8; 32],
    /// When the last signed saga completed, on this node's clock; `None`: none has completed.
    signed_ms: Option<u64>,
    /// Completed since the last signed one.
    unsigned: u64,
}

impl Ledger {
    /// Of a connection without sagas.
    pub const fn new() -> Self {
        Self { chain: [0; 32], signed_ms: None, unsigned: 0 }
    }

    /// The saga chain: zeros at first, then SHA-256 over itself and the hashes of the bodies of COMMIT and COMMIT_ACK of
    /// each completed saga.
    pub const fn chain(&self) -> &[u8; 32] {
        &self.chain
    }

    /// Completed sagas that no signature covers yet.
    pub const fn unsigned(&self) -> u64 {
        self.unsigned
    }

    /// Whether OPEN and OPEN_ACK are signed: as long as no saga has completed.
    pub(super) const fn opening_due(&self) -> bool {
        self.signed_ms.is_none()
    }

    /// Whether the opener signs COMMIT. `news`: the saga moves records or tips; `last`: BYE follows.
    pub(super) fn closing_due(&self, now: Now, news: bool, last: bool) -> bool {
        self.is_due(now, news, 1) || last && self.unsigned > 0
    }

    /// Whether the answerer refuses a COMMIT that is not signed.
    pub(super) fn closing_required(&self, now: Now, news: bool) -> bool {
        self.is_due(now, news, PATIENCE)
    }

    fn is_due(&self, now: Now, news: bool, patience: u64) -> bool {
        let Some(signed_ms) = self.signed_ms else { return true };
        let late = now.mono_ms.saturating_sub(signed_ms) >= UNSIGNED_MS_MAX * patience;
        news && (late || self.unsigned >= UNSIGNED_SAGAS_MAX * patience)
    }

    /// A saga has completed: the hashes of the bodies of COMMIT and COMMIT_ACK as they were sent.
    pub(super) fn completed(&self, now: Now, commit: &[u8; 32], ack: &[u8; 32], signed: bool) -> Self {
        let mut hasher = Sha256::new();
        [&self.chain, commit, ack].into_iter().for_each(|part| hasher.update(part));
        Self {
            chain: hasher.finish(),
            signed_ms: if signed { Some(now.mono_ms) } else { self.signed_ms },
            unsigned: if signed { 0 } else { self.unsigned + 1 },
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    /// A ledger that has signed at 0 and completed some sagas since.
    fn ledger(unsigned: u64) -> Ledger {
        Ledger { unsigned, ..Ledger::new().completed(at(0), &[1; 32], &[2; 32], true) }
    }

    // Proves: SY-33
    #[test]
    fn what_is_signed() {
        // (ledger, time, brings something new, BYE follows) → (opener signs, answerer demands)
        let rows = [
            (Ledger::new(), 0, false, false, true, true),
            (Ledger::new(), 0, true, false, true, true),
            (ledger(0), 1, true, false, false, false),
            (ledger(1023), 1, true, false, false, false),
            (ledger(1024), 1, true, false, true, false),
            (ledger(1024), 1, false, false, false, false),
            (ledger(2047), 1, true, false, true, false),
            (ledger(2048), 1, true, false, true, true),
            (ledger(2048), 1, false, false, false, false),
            (ledger(1), 599_999, true, false, false, false),
            (ledger(1), 600_000, true, false, true, false),
            (ledger(1), 600_000, false, false, false, false),
            (ledger(1), 1_199_999, true, false, true, false),
            (ledger(1), 1_200_000, true, false, true, true),
            (ledger(1), 1_200_000, false, false, false, false),
            (ledger(0), 1, false, true, false, false),
            (ledger(1), 1, false, true, true, false),
        ];
        for (ledger, ms, news, last, signs, demands) in rows {
            let row = (ledger.unsigned, ledger.signed_ms, ms, news, last);
            assert_eq!(ledger.closing_due(at(ms), news, last), signs, "the opener: {row:?}");
            assert_eq!(ledger.closing_required(at(ms), news), demands, "the answerer: {row:?}");
        }
        assert!(Ledger::new().opening_due() && !ledger(0).opening_due());
    }

    // Proves: SY-33
    #[test]
    fn an_hour_of_sagas_is_a_handful_of_signatures() {
        // (sagas, ms between two of them): one a second; bursts, where the count is what counts; one every ten minutes.
        for (sagas, pause_ms, expected) in [(3600, 1000, 6), (10_250, 10, 10), (6, 600_000, 6)] {
            let mut ledger = Ledger::new().completed(at(0), &[0; 32], &[0; 32], true);
            let mut frames = 0;
            for number in 1..=sagas {
                let now = at(number * pause_ms);
                assert!(!ledger.opening_due());
                let signed = ledger.closing_due(now, true, false);
                assert!(signed || !ledger.closing_required(now, true), "nothing is demanded that was not due");
                frames += u64::from(signed);
                ledger = ledger.completed(now, &[1; 32], &[2; 32], signed);
            }
            assert_eq!(frames, expected, "{sagas} sagas, {pause_ms} ms apart");
            assert!(sagas != 3600 || frames <= 8);
        }
    }

    #[test]
    fn the_chain_is_over_all_sagas_in_order() {
        let one = Ledger::new().completed(at(0), &[1; 32], &[2; 32], true);
        assert_eq!(*one.chain(), sealtide_crypto::sha256(&[[0u8; 32], [1; 32], [2; 32]].concat()));
        let two = one.completed(at(0), &[3; 32], &[4; 32], false);
        assert_eq!(*two.chain(), sealtide_crypto::sha256(&[*one.chain(), [3; 32], [4; 32]].concat()));
        let swapped =
            Ledger::new().completed(at(0), &[3; 32], &[4; 32], true).completed(at(0), &[1; 32], &[2; 32], false);
        assert_ne!(two.chain(), swapped.chain());
    }
}
