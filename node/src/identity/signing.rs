//! Signing once: lock the keystone, take its newest frame, write the next one durably, count it durably, and only then
//! show it. Spec: ibgib §12.3 "State"

use sealtide_ibgib::{Address, Verified};
use sealtide_identity::keystone::{Chain, Claim, Class, Rank, SessionSecret, SignError, Signer, Standing, sign};

use super::doubt::Doubt;
use super::frames::StoreTrouble;
use super::{Identities, lock};
use crate::failpoint;
use crate::world::OsEntropy;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignRefused {
    /// The newest frame has a successor already: this one, which is what may be shown.
    #[error("a frame was signed after that one already")]
    AlreadySigned(Box<Verified>),
    /// The store may be an old one.
    #[error(transparent)]
    Doubtful(#[from] Doubt),
    /// A peer holds newer frames of the keystone than this node.
    #[error("a peer holds newer frames of this keystone; they have to be fetched first")]
    Behind,
    /// This node does not hold the keys.
    #[error("this node has no keys of that keystone")]
    NoKeys,
    /// The keystone or the claim does not allow it.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreTrouble),
}

impl Identities {
    /// Refuses to sign while the store may be an old one, or a peer knows more.
    // Spec: SY-26
    pub(super) fn check_doubts(&self, first: &Address) -> Result<(), SignRefused> {
        let doubts = lock(&self.0.doubts);
        if doubts.is_behind(first) {
            return Err(SignRefused::Behind);
        }
        doubts.of(first).map_or(Ok(()), |doubt| Err(doubt.into()))
    }

    /// Makes frames after the newest of a keystone, under its lock, and writes them before they are shown.
    // Spec: SY-25
    pub(super) fn evolve(
        &self,
        first: &Address,
        make: impl FnOnce(&Chain) -> Result<Vec<Standing>, SignRefused>,
    ) -> Result<Vec<Verified>, SignRefused> {
        self.evolve_beside(first, Vec::new(), make)
    }

    /// As [`Identities::evolve`]; own frames of another keystone (the first of a session) are written in the same step.
    pub(super) fn evolve_beside(
        &self,
        first: &Address,
        beside: Vec<Verified>,
        make: impl FnOnce(&Chain) -> Result<Vec<Standing>, SignRefused>,
    ) -> Result<Vec<Verified>, SignRefused> {
        let slot = self.0.frames.slot(first);
        let mut guard = lock(&slot);
        let chain = guard.get_or_insert_with(|| self.0.frames.load(first));
        let made = make(chain)?;
        self.check_single(first, &made)?;
        let records: Vec<Verified> = made.iter().map(|standing| standing.frame().record().clone()).collect();
        let all = beside.into_iter().chain(records.iter().cloned()).collect();
        let of_owner = made.iter().any(|standing| standing.class() == Class::Owner).then_some(first);
        if let Err(trouble) = self.reveal_after_commit(all, of_owner) {
            // Whether it was written is told by the disk alone.
            *guard = None;
            return Err(trouble.into());
        }
        for standing in made {
            let _ = chain.extend(standing);
        }
        Ok(records)
    }

    /// An ordinary frame is made only where none was made before, whatever memory says.
    fn check_single(&self, first: &Address, frames: &[Standing]) -> Result<(), SignRefused> {
        let Some(next) = frames.iter().find(|standing| standing.rank() == Rank::Ordinary) else { return Ok(()) };
        let facts = next.frame().facts();
        let Some(previous) = facts.past.last() else { return Ok(()) };
        match self.0.frames.successor(first, previous, facts.n.saturating_sub(1)) {
            Some(there) => Err(SignRefused::AlreadySigned(Box::new(there))),
            None => Ok(()),
        }
    }

    /// Writes frames, then counts the own ones in the key file; those of an owner are own when it is the own one. When
    /// this returns they may be shown.
    pub(super) fn reveal_after_commit(
        &self,
        records: Vec<Verified>,
        of_owner: Option<&Address>,
    ) -> Result<(), StoreTrouble> {
        let count = records.len() as u64;
        failpoint::hit("identity.made");
        self.0.frames.commit(records)?;
        failpoint::hit("identity.committed");
        let counted = match of_owner {
            Some(owner) => self.0.vault.raise_owner(owner, count),
            None => self.0.vault.raise(count),
        };
        counted.map_err(|error| StoreTrouble(format!("the key file: {error}")))?;
        failpoint::hit("identity.counted");
        Ok(())
    }

    /// Signs with the own owner keystone.
    pub(super) fn sign_owner(&self, claim: &Claim) -> Result<Verified, SignRefused> {
        let (first, key) = self.0.vault.owner().zip(self.0.vault.owner_key()).ok_or(SignRefused::NoKeys)?;
        self.check_doubts(&first)?;
        self.sign_ordinary(&first, Signer::Working(self.0.vault.working()), &key, claim)
    }

    /// Signs with a session keystone of this node.
    pub(super) fn sign_session(
        &self,
        first: &Address,
        secret: &SessionSecret,
        claim: &Claim,
    ) -> Result<Verified, SignRefused> {
        let key = sealtide_crypto::SigningKey::from_seed(&secret.key_seed());
        self.sign_ordinary(first, Signer::Session(secret), &key, claim)
    }

    pub(super) fn sign_ordinary(
        &self,
        first: &Address,
        signer: Signer<'_>,
        key: &sealtide_crypto::SigningKey,
        claim: &Claim,
    ) -> Result<Verified, SignRefused> {
        let stamp = self.now();
        let records = self.evolve(first, |chain| {
            let made = sign(chain, signer, key, claim, stamp, &mut OsEntropy)?;
            Ok(vec![made])
        })?;
        records.into_iter().next().ok_or(SignRefused::NoKeys)
    }
}
