//! Random changes, as people and programs make them: documents, files, edits of old and new frames, deletions,
//! binaries.

use bytes::Bytes;
use sealtide_crypto::Entropy;
use sealtide_ibgib::{
    ChunkHash, Content, FILE_IB, FileFrame, FileKind, Manifest, Object, Relations, Stamp, Verified, binary_record,
    evolve, genesis, uuid,
};
use sealtide_identity::NodeId;
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;

use crate::dice::Dice;

/// A local change, ready to be committed.
#[derive(Debug, Default)]
pub struct Change {
    /// What it is, for the trace.
    pub what: &'static str,
    /// Its records.
    pub records: Vec<Verified>,
    /// Chunks that must be stored first.
    pub chunks: Vec<(ChunkHash, Bytes)>,
}

/// Makes the changes of one node.
#[derive(Debug)]
pub struct Author {
    dice: Dice,
    by: NodeId,
    number: u64,
    /// Whether binaries above the inline limit are made.
    pub large: bool,
}

impl Author {
    /// The author of a node.
    pub fn new(dice: Dice, by: NodeId) -> Self {
        Self { dice, by, number: 0, large: false }
    }

    /// A random change on what `view` shows.
    pub fn change(&mut self, view: &SpaceHandle, wall_ms: u64) -> Change {
        let stamp = Stamp { ms: wall_ms };
        let known = self.some_frame(view);
        match (self.dice.below(100), known) {
            (0..45, Some(prev)) => self.edit(prev, stamp),
            (45..53, Some(prev)) if prev.address().ib() == FILE_IB => self.delete(&prev, stamp),
            (53..63, known) => self.binary(known, stamp),
            (63..67, known) if self.large => self.large_binary(known, stamp),
            (67..70, _) => self.many(stamp),
            _ => self.new_one(stamp),
        }
    }

    /// A new document.
    pub fn document(&mut self, stamp: Stamp) -> Verified {
        let uuid = uuid(&mut self.dice);
        genesis("doc", self.data(), Relations::new(), stamp, &uuid)
    }

    /// The next frame of a document.
    pub fn next(&mut self, prev: &Verified, stamp: Stamp) -> Verified {
        evolve(prev, self.data(), Relations::new(), stamp)
    }

    /// A binary of so many chunks that it does not fit into one record, with a file frame.
    pub fn large(&mut self, bytes: usize, prev: Option<Verified>, stamp: Stamp) -> Change {
        let mut content = vec![0; bytes];
        self.dice.fill(&mut content);
        let mut change = Change { what: "large binary", ..Change::default() };
        let mut keep = |chunk: sealtide_ibgib::CutChunk| {
            change.chunks.push((chunk.chunk().hash, chunk.bytes().clone()));
            Ok(())
        };
        let manifest = Manifest::cut(&mut content.as_slice(), &mut keep).expect("memory can be read");
        change.records = manifest.records();
        let address = change.records.last().expect("a manifest has a record").address().clone();
        change.records.push(self.file(Content::Bin(address), prev, stamp));
        change
    }

    /// A frame to build on: mostly a tip, sometimes an older one, as somebody has it who was away for long.
    fn some_frame(&mut self, view: &SpaceHandle) -> Option<Verified> {
        let tips = view.tip_items();
        let tips: Vec<_> = tips.iter().filter(|tip| matches!(tip.tjp.ib(), "doc" | FILE_IB)).collect();
        let tip = self.dice.pick(&tips)?;
        if self.dice.one_in(8) {
            let frames = view.frames(&tip.timeline, 0, u64::MAX, usize::MAX);
            return view.record(self.dice.pick(&frames)?);
        }
        view.record(&tip.sid)
    }

    fn data(&mut self) -> Object {
        self.number += 1;
        let text: String = (0..self.dice.below(40)).map(|_| char::from(b'a' + self.dice.below(26) as u8)).collect();
        let mut data = Object::new();
        data.insert("name".to_owned(), format!("doc {}", self.number).into());
        data.insert("doc".to_owned(), text.into());
        data.insert("by".to_owned(), self.by.to_string().into());
        data
    }

    fn edit(&mut self, mut prev: Verified, stamp: Stamp) -> Change {
        let mut change = Change { what: "edit", ..Change::default() };
        for _ in 0..self.dice.between(1, 5) {
            let next = if prev.address().ib() == FILE_IB {
                let text = format!("text {}", self.dice.word());
                self.file(Content::Text(text), Some(prev), stamp)
            } else {
                self.next(&prev, stamp)
            };
            change.records.push(next.clone());
            prev = next;
        }
        change
    }

    fn delete(&mut self, prev: &Verified, stamp: Stamp) -> Change {
        let frame = FileFrame::read(prev).expect("only good file frames are made here");
        let gone = frame.deletion(stamp.ms as i64, &self.by.to_string()).evolve(prev, stamp);
        Change { what: "deletion", records: vec![gone.expect("a deletion is small")], chunks: Vec::new() }
    }

    fn binary(&mut self, prev: Option<Verified>, stamp: Stamp) -> Change {
        let mut content = vec![0; self.dice.between(1, 3000) as usize];
        self.dice.fill(&mut content);
        let record = binary_record(content.into());
        let frame = self.file(Content::Bin(record.address().clone()), prev, stamp);
        Change { what: "binary", records: vec![record, frame], chunks: Vec::new() }
    }

    fn large_binary(&mut self, prev: Option<Verified>, stamp: Stamp) -> Change {
        let bytes = self.dice.between(600_000, 1_500_000) as usize;
        self.large(bytes, prev, stamp)
    }

    fn many(&mut self, stamp: Stamp) -> Change {
        let records = (0..self.dice.between(5, 25)).map(|_| self.document(stamp)).collect();
        Change { what: "many documents", records, chunks: Vec::new() }
    }

    fn new_one(&mut self, stamp: Stamp) -> Change {
        let record = if self.dice.one_in(2) {
            self.document(stamp)
        } else {
            let text = format!("text {}", self.dice.word());
            self.file(Content::Text(text), None, stamp)
        };
        Change { what: "new timeline", records: vec![record], chunks: Vec::new() }
    }

    fn file(&mut self, content: Content, prev: Option<Verified>, stamp: Stamp) -> Verified {
        let prev = prev.filter(|prev| prev.address().ib() == FILE_IB);
        self.number += 1;
        let path = format!("{}/{}.txt", self.by.short(), self.number);
        let path = prev.as_ref().and_then(|prev| FileFrame::read(prev).ok()).map_or(path, |frame| frame.path);
        let frame = FileFrame {
            path,
            kind: FileKind::File,
            exec: self.dice.one_in(4),
            mtime: stamp.ms as i64,
            by: self.by.to_string(),
            content,
            deleted: false,
            yielded: None,
        };
        let made = match &prev {
            Some(prev) => frame.evolve(prev, stamp),
            None => frame.genesis(stamp, &uuid(&mut self.dice)),
        };
        made.expect("the parts of the frame are good")
    }
}
