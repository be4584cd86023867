//! What sagas have staged and not committed yet, for quotas. Spec: SY-68

use std::collections::BTreeSet;

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
    let listed = txn.records.iter().filter_map(|id| index.chunk_lists.get(id)).flatten();
    let listed: BTreeSet<_> = listed.copied().collect();
    let mut chunks = 0;
    let mut count = |chunk| {
        if !index.is_listed(&chunk)? {
            chunks += index.chunk(&chunk)?.map_or(0, |info| u64::from(info.len));
        }
        Ok(())
    };
    // A page that cannot be read closes the store for writing; a quota cannot help it.
    let _ = draft.map_or(Ok(()), |draft| {
        index.each_chunk(&draft.state, |chunk| if listed.contains(&chunk) { Ok(()) } else { count(chunk) })
    });
    let _ = listed.iter().try_for_each(|chunk| count(*chunk));
    records + chunks
}
