//! What sagas have staged and not committed yet, for quotas. Spec: SY-68

use sealtide_identity::SpaceId;
use sealtide_sync::{SagaId, SagaState};

use crate::index::{Index, SagaInfo};
use crate::read;
use crate::store::Store;

/// A saga that has staged and is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedSaga {
    /// Which.
    pub saga: SagaId,
    /// For which space.
    pub space: SpaceId,
    /// Encoded bytes of its records, and bytes of the chunks that they list and no member does.
    pub bytes: u64,
}

impl Store {
    /// All sagas that have staged and are not over, in order of their ids. Reads what they staged: not for every step.
    pub fn staged_sagas(&self) -> Vec<StagedSaga> {
        let index = read(&self.inner.index);
        let staged = index.sagas.iter().filter(|(_, info)| info.state == SagaState::Staged);
        staged
            .map(|(saga, info)| StagedSaga { saga: *saga, space: info.space, bytes: staged_bytes(&index, info) })
            .collect()
    }

    /// Bytes that a saga has staged, as in [`StagedSaga::bytes`]; 0 for one that is over or unknown.
    pub fn staged_bytes(&self, saga: &SagaId) -> u64 {
        let index = read(&self.inner.index);
        let info = index.sagas.get(saga).filter(|info| info.state == SagaState::Staged);
        info.map_or(0, |info| staged_bytes(&index, info))
    }
}

fn staged_bytes(index: &Index, info: &SagaInfo) -> u64 {
    let Some(txn) = index.txns.get(&info.txn) else { return 0 };
    let draft = txn.draft.as_deref();
    let records = txn.records.iter().map(|id| u64::from(index.records.get(*id).encoded_len)).sum::<u64>()
        + draft.map_or(0, |draft| draft.state.bytes);
    let mut chunks = draft.and_then(|draft| index.chunks_of(&draft.state).ok()).unwrap_or_default();
    chunks.extend(txn.records.iter().filter_map(|id| index.chunk_lists.get(id)).flatten());
    let new = chunks.into_iter().filter(|chunk| index.is_listed(chunk) == Ok(false));
    let stored = new.filter_map(|chunk| index.chunk(&chunk).ok().flatten());
    records + stored.map(|chunk| u64::from(chunk.len)).sum::<u64>()
}
