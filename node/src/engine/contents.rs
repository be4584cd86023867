//! Contents that are asked for by name, apart from sagas: chunks of records that are here and whose contents are not. Spec:
//! sync §14
//!
//! ```text
//! ─▶ {"schema","space","chunks"}                      ≤ 8 KiB, ≤ 64 chunks
//! ◀─ for each chunk, in that order: pieces of ≤ 64 KiB, before each a byte, 1 before the last; one that is not there has
//!    one piece without bytes
//! ```
//!
//! The hash tells whether a chunk is the right one, so it does not matter who brings it.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use sealtide_crypto::blake3;
use sealtide_ibgib::{CHUNK_BYTES_MAX, ChunkHash, ChunkRef};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::world::{ChannelGone, PeerChannel, World};

/// The name of the channel.
pub(crate) const CHANNEL: &str = "contents/1";
/// Chunks that are asked for over one channel, at most.
pub(crate) const CHUNKS_MAX: usize = 64;
const SCHEMA: &str = "sealtide/contents/1";
/// Bytes of a question, at most.
pub(crate) const ASK_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a chunk that are sent at once; the window of the channel is 256 KiB.
const PIECE: usize = 64 * 1024;
/// How long whoever opened a channel may take to say what for.
const ASKING: Duration = Duration::from_secs(10);
/// How long the other side may take for one piece.
const MOVING: Duration = Duration::from_secs(30);
/// How long one answer may take in all.
const ANSWERING: Duration = Duration::from_secs(600);

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoContents {
    #[error("it went away, or said nothing for too long")]
    Gone,
    #[error("it sent something else")]
    Broken,
}

/// Asks for chunks of a space over a channel that was opened for it: whole ones go to `keep` as they come; those that are not
/// there are left out. At most [`CHUNKS_MAX`].
///
/// # Errors
/// [`NoContents`], also when all of it takes longer than whoever answers may take; what was kept until then is good.
pub(crate) async fn ask<C: PeerChannel, F: Future<Output = ()>>(
    channel: &C,
    space: &SpaceId,
    chunks: &[ChunkRef],
    keep: impl Fn(ChunkHash, Bytes) -> F,
) -> Result<(), NoContents> {
    let answered = async {
        moved(channel.send(question(space, chunks))).await?.map_err(|ChannelGone| NoContents::Gone)?;
        for chunk in chunks {
            if let Some(bytes) = whole(channel, chunk).await? {
                keep(chunk.hash, bytes).await;
            }
        }
        Ok(())
    };
    let answered = tokio::time::timeout(ANSWERING, answered).await;
    channel.finish();
    answered.unwrap_or(Err(NoContents::Gone))
}

async fn moved<T>(step: impl Future<Output = T>) -> Result<T, NoContents> {
    tokio::time::timeout(MOVING, step).await.map_err(|_| NoContents::Gone)
}

/// One chunk, its length and hash checked; `None` when it is not there.
async fn whole<C: PeerChannel>(channel: &C, chunk: &ChunkRef) -> Result<Option<Bytes>, NoContents> {
    let length = chunk.length.min(CHUNK_BYTES_MAX) as usize;
    let mut bytes = Vec::new();
    loop {
        let Ok(Some(message)) = moved(channel.recv()).await? else { return Err(NoContents::Gone) };
        channel.release(message.len() as u64);
        let (last, piece) = match message.split_first() {
            Some((last @ (0 | 1), piece)) => (*last == 1, piece),
            _ => return Err(NoContents::Broken),
        };
        if last && piece.is_empty() && bytes.is_empty() {
            return Ok(None);
        }
        if piece.is_empty() || bytes.len() + piece.len() > length {
            return Err(NoContents::Broken);
        }
        bytes.extend_from_slice(piece);
        if last {
            let is_it = bytes.len() == length && blake3(&bytes) == chunk.hash.0;
            return if is_it { Ok(Some(bytes.into())) } else { Err(NoContents::Broken) };
        }
    }
}

impl<W: World> Engine<W> {
    /// The space of which a peer is given contents: one that it may read, and that is not paused.
    pub(crate) fn contents_for(&self, peer: &NodeId, space: &SpaceId) -> Option<SpaceHandle> {
        let may = self.role(peer, space).is_some() && !self.is_paused(space);
        may.then(|| self.store().view(space))?
    }
}

/// Answers what somebody asked over a channel: `view` gives the space where the peer may read it.
pub(crate) async fn answer<C: PeerChannel>(channel: &C, view: impl FnOnce(&SpaceId) -> Option<SpaceHandle>) {
    let asked = tokio::time::timeout(ASKING, channel.recv()).await;
    if let Ok(Ok(Some(message))) = asked {
        channel.release(message.len() as u64);
        if let Some((space, chunks)) = read_question(&message)
            && let Some(view) = view(&space)
        {
            let _ = tokio::time::timeout(ANSWERING, tell(channel, &view, &chunks)).await;
        }
    }
    channel.finish();
}

async fn tell<C: PeerChannel>(channel: &C, view: &SpaceHandle, chunks: &[ChunkHash]) -> Result<(), NoContents> {
    for hash in chunks {
        let (view, hash) = (view.clone(), *hash);
        let read = tokio::task::spawn_blocking(move || view.chunk(&hash, 0, CHUNK_BYTES_MAX as usize)).await;
        let bytes = read.ok().flatten().unwrap_or_default();
        let mut at = 0;
        loop {
            let end = (at + PIECE).min(bytes.len());
            let last = u8::from(end == bytes.len());
            let piece = Bytes::from([&[last], &bytes[at..end]].concat());
            moved(channel.send(piece)).await?.map_err(|ChannelGone| NoContents::Gone)?;
            at = end;
            if last == 1 {
                break;
            }
        }
    }
    Ok(())
}

pub(crate) fn question(space: &SpaceId, chunks: &[ChunkRef]) -> Bytes {
    let chunks: Vec<String> = chunks.iter().map(|chunk| HEXLOWER.encode(&chunk.hash.0)).collect();
    json!({"schema": SCHEMA, "space": space.to_string(), "chunks": chunks}).to_string().into_bytes().into()
}

pub(crate) fn read_question(bytes: &[u8]) -> Option<(SpaceId, Vec<ChunkHash>)> {
    let bytes = Some(bytes).filter(|bytes| bytes.len() <= ASK_BYTES_MAX)?;
    let told: Value = serde_json::from_slice(bytes).ok()?;
    (told["schema"] == SCHEMA).then_some(())?;
    let chunks = told["chunks"].as_array().filter(|chunks| chunks.len() <= CHUNKS_MAX)?;
    let hash = |text: &Value| Some(ChunkHash(HEXLOWER.decode(text.as_str()?.as_bytes()).ok()?.try_into().ok()?));
    Some((told["space"].as_str()?.parse().ok()?, chunks.iter().map(hash).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use sealtide_store::mem::MemDisk;
    use sealtide_store::{Config, Store, conformance};

    use super::*;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);
    const OTHER: SpaceId = SpaceId::from_bytes([2; 32]);

    /// One end whose other end said everything already.
    #[derive(Default)]
    struct Told {
        says: Mutex<VecDeque<Bytes>>,
        hears: Mutex<Vec<Bytes>>,
    }

    impl Told {
        fn saying(messages: impl IntoIterator<Item = Bytes>) -> Self {
            Self { says: Mutex::new(messages.into_iter().collect()), ..Self::default() }
        }
    }

    impl PeerChannel for Told {
        fn name(&self) -> &str {
            CHANNEL
        }

        async fn send(&self, message: Bytes) -> Result<(), ChannelGone> {
            self.hears.lock().unwrap().push(message);
            Ok(())
        }

        async fn recv(&self) -> Result<Option<Bytes>, ChannelGone> {
            Ok(self.says.lock().unwrap().pop_front())
        }

        fn release(&self, _: u64) {}

        fn finish(&self) {}
    }

    /// A store with a binary in one space, and the chunks of it.
    fn with_binary() -> (Store, Vec<ChunkRef>) {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config::default()).unwrap();
        store.adopt_space(SPACE).unwrap();
        store.adopt_space(OTHER).unwrap();
        let (chunks, manifest) = conformance::binary(1);
        chunks.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap());
        store.commit(&SPACE, &conformance::local(vec![manifest])).unwrap();
        let refs = chunks.iter().map(|(hash, content)| ChunkRef { length: content.len() as u32, hash: *hash });
        (store, refs.collect())
    }

    async fn answers(store: &Store, space: &SpaceId, chunks: &[ChunkRef]) -> Vec<Bytes> {
        let server = Told::saying([question(space, chunks)]);
        answer(&server, |space| store.view(space)).await;
        server.hears.into_inner().unwrap()
    }

    async fn takes(answers: Vec<Bytes>, chunks: &[ChunkRef]) -> (Result<(), NoContents>, Vec<ChunkHash>) {
        let (client, kept) = (Told::saying(answers), Mutex::new(Vec::new()));
        let asked = ask(&client, &SPACE, chunks, |hash, bytes| {
            assert_eq!(blake3(&bytes), hash.0);
            kept.lock().unwrap().push(hash);
            std::future::ready(())
        });
        let asked = asked.await;
        (asked, kept.into_inner().unwrap())
    }

    // Proves: SY-73
    #[tokio::test]
    async fn chunks_come_whole_and_only_those_of_the_space() {
        let (store, chunks) = with_binary();
        let absent = ChunkRef { length: 9, hash: ChunkHash([9; 32]) };
        let asked = [&[absent][..], &chunks].concat();
        let told = answers(&store, &SPACE, &asked).await;
        let hashes: Vec<ChunkHash> = chunks.iter().map(|chunk| chunk.hash).collect();
        assert_eq!(takes(told, &asked).await, (Ok(()), hashes));
        let told = answers(&store, &OTHER, &chunks).await;
        assert_eq!(takes(told, &chunks).await, (Ok(()), Vec::new()), "a chunk of another space is not there");
        assert_eq!(answers(&store, &SpaceId::from_bytes([3; 32]), &chunks).await, Vec::<Bytes>::new());
    }

    // Proves: SY-66
    #[tokio::test]
    async fn what_is_not_the_chunk_is_refused() {
        let (store, chunks) = with_binary();
        let good = answers(&store, &SPACE, &chunks).await;
        let changed = |at: usize, change: &dyn Fn(&mut Vec<u8>)| {
            let mut told = good.clone();
            let mut message = told[at].to_vec();
            change(&mut message);
            told[at] = message.into();
            told
        };
        let broken: [(&str, Vec<Bytes>); 5] = [
            ("another byte", changed(0, &|message| message[5] ^= 1)),
            ("longer", changed(good.len() - 1, &|message| message.push(0))),
            ("shorter", changed(good.len() - 1, &|message| message.truncate(message.len() - 1))),
            ("no sign", changed(0, &|message| message[0] = 2)),
            ("nothing at all", changed(0, &Vec::clear)),
        ];
        for (what, told) in broken {
            assert_eq!(takes(told, &chunks).await.0, Err(NoContents::Broken), "{what}");
        }
        let cut = good[..good.len() - 1].to_vec();
        assert_eq!(takes(cut, &chunks).await.0, Err(NoContents::Gone));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_question_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
            for bytes in [&bytes[..], text.as_bytes()] {
                prop_assert!(read_question(bytes).is_none());
            }
        }

        #[test]
        fn a_question_that_was_changed_is_bounded(
            count in 0..=CHUNKS_MAX,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
        ) {
            let chunks = vec![ChunkRef { length: 1, hash: ChunkHash([0xab; 32]) }; count];
            let mut bytes = question(&SPACE, &chunks).to_vec();
            for (at, byte, how) in changes {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            crate::fuzzing::contents_question(&bytes);
        }

        #[test]
        fn a_question_comes_out_as_it_went_in(hashes in prop::collection::vec(any::<[u8; 32]>(), 0..=CHUNKS_MAX)) {
            let chunks: Vec<ChunkRef> =
                hashes.iter().map(|hash| ChunkRef { length: 1, hash: ChunkHash(*hash) }).collect();
            let asked = chunks.iter().map(|chunk| chunk.hash).collect();
            prop_assert_eq!(read_question(&question(&SPACE, &chunks)), Some((SPACE, asked)));
        }
    }

    #[test]
    fn questions_are_bounded() {
        let (space, chunk) = (SPACE.to_string(), "0".repeat(64));
        let question = |schema: &str, count: usize, chunk: &str| {
            json!({"schema": schema, "space": space, "chunks": vec![chunk; count]}).to_string()
        };
        let read = |text: String| read_question(text.as_bytes()).map(|(_, chunks)| chunks.len());
        assert_eq!(read(question(SCHEMA, CHUNKS_MAX, &chunk)), Some(CHUNKS_MAX));
        for text in [
            question(SCHEMA, CHUNKS_MAX + 1, &chunk),
            question("sealtide/contents/2", 1, &chunk),
            question(SCHEMA, 1, &chunk[1..]),
            "x".repeat(9000),
            "{}".to_owned(),
        ] {
            assert_eq!(read(text.clone()), None, "{text:.80}");
        }
    }
}
