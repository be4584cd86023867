//! The other end of the sagas of `bench reconcile`: in this process, or in one of its own, so that each has the memory of
//! one node. Spec: SY-44

use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bytes::Bytes;
use sealtide_store::Store;
use sealtide_sync::Mode;

use super::memory::{self, Watch};
use super::reconcile::{End, Kind, differences, put};
use crate::failure::Failure;

/// What the near end wants of the far end.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// A saga begins.
    Begin(u8),
    /// Messages of a saga; the answer is what the far end says then.
    Turn(u8, Vec<Bytes>),
    /// Records that only the far end has.
    Put(Kind, u32),
    /// How a saga ended.
    Outcome(u8),
    /// The memory.
    Memory,
}

/// What the far end answers.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Done,
    Said(Vec<Bytes>),
    /// Records received.
    Received(u64),
    /// Bytes of anonymous memory: after opening the store, and the most since.
    Memory(u64, u64),
}

/// A far end.
pub(super) trait Far {
    fn ask(&mut self, order: Order) -> Result<Reply, Failure>;
}

/// A store that answers sagas.
pub(super) struct FarEnd {
    store: Store,
    ends: BTreeMap<u8, End>,
    watch: Watch,
    opened: u64,
}

impl FarEnd {
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let watch = Watch::start();
        let store = Store::open_dir(dir).map_err(|error| failed(&error))?;
        Ok(Self { store, ends: BTreeMap::new(), watch, opened: memory::anonymous() })
    }
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::failed("bench", error.to_string())
}

impl Far for FarEnd {
    fn ask(&mut self, order: Order) -> Result<Reply, Failure> {
        match order {
            Order::Begin(saga) => {
                self.ends.insert(saga, End::answer(&self.store, saga)?);
                Ok(Reply::Done)
            }
            Order::Turn(saga, messages) => {
                let end = self.ends.get_mut(&saga).ok_or_else(|| failed(&"no such saga"))?;
                Ok(Reply::Said(end.turn(messages)?))
            }
            Order::Put(kind, count) => {
                put(&self.store, differences(kind, "right", count as usize))?;
                Ok(Reply::Done)
            }
            Order::Outcome(saga) => {
                let end = self.ends.remove(&saga).ok_or_else(|| failed(&"no such saga"))?;
                Ok(Reply::Received(end.received().map(|(received, _): (u64, Mode)| received)?))
            }
            Order::Memory => Ok(Reply::Memory(self.opened, self.watch.peak())),
        }
    }
}

/// A far end in a process of its own.
pub(super) struct Remote {
    child: Child,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Remote {
    /// Starts this program again over the store in `dir`.
    pub(super) fn start(dir: &Path, memory_mib: Option<u64>) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        command.args(["bench", "far-end", "--directory"]).arg(dir);
        if let Some(mib) = memory_mib {
            command.args(["--memory-mib", &mib.to_string()]);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| failed(&error))?;
        let ends = child.stdin.take().zip(child.stdout.take());
        let (to, from) = ends.ok_or_else(|| failed(&"a process without pipes"))?;
        Ok(Self { child, to: BufWriter::new(to), from: BufReader::new(from) })
    }
}

impl Far for Remote {
    fn ask(&mut self, order: Order) -> Result<Reply, Failure> {
        let lost = |error: std::io::Error| failed(&format!("the far end is gone, out of memory? {error}"));
        write_all(&mut self.to, &order.write()).map_err(lost)?;
        let frames = read_all(&mut self.from).map_err(lost)?;
        frames.and_then(Reply::read).ok_or_else(|| failed(&"the far end is gone: out of memory?"))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the far end over standard input and output until the near end is gone.
pub(super) fn serve(dir: &Path) -> Result<(), Failure> {
    let mut end = FarEnd::open(dir)?;
    let (mut from, mut to) = (BufReader::new(std::io::stdin()), BufWriter::new(std::io::stdout()));
    while let Some(order) = read_all(&mut from).map_err(|error| failed(&error))?.and_then(Order::read) {
        let reply = end.ask(order)?;
        write_all(&mut to, &reply.write()).map_err(|error| failed(&error))?;
    }
    Ok(())
}

// Each message is a list of byte strings, the first of which says what it is: count u32, then for each length u32, bytes.

fn write_all(to: &mut impl Write, parts: &[Bytes]) -> std::io::Result<()> {
    to.write_all(&(parts.len() as u32).to_le_bytes())?;
    for part in parts {
        to.write_all(&(part.len() as u32).to_le_bytes())?;
        to.write_all(part)?;
    }
    to.flush()
}

fn read_all(from: &mut impl Read) -> std::io::Result<Option<Vec<Bytes>>> {
    let mut number = [0; 4];
    if let Err(error) = from.read_exact(&mut number) {
        return if error.kind() == std::io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let mut parts = Vec::new();
    for _ in 0..u32::from_le_bytes(number) {
        from.read_exact(&mut number)?;
        let mut part = vec![0; u32::from_le_bytes(number) as usize];
        from.read_exact(&mut part)?;
        parts.push(part.into());
    }
    Ok(Some(parts))
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(1..9)?.try_into().ok()?))
}

fn tagged(tag: u8, number: u64) -> Bytes {
    [&[tag][..], &number.to_le_bytes()].concat().into()
}

impl Order {
    fn write(&self) -> Vec<Bytes> {
        match self {
            Self::Begin(saga) => vec![tagged(0, u64::from(*saga))],
            Self::Turn(saga, messages) => {
                std::iter::once(tagged(1, u64::from(*saga))).chain(messages.iter().cloned()).collect()
            }
            Self::Put(Kind::Items, count) => vec![tagged(2, u64::from(*count))],
            Self::Put(Kind::Tips, count) => vec![tagged(3, u64::from(*count))],
            Self::Outcome(saga) => vec![tagged(4, u64::from(*saga))],
            Self::Memory => vec![tagged(5, 0)],
        }
    }

    fn read(mut parts: Vec<Bytes>) -> Option<Self> {
        let messages = parts.split_off(1.min(parts.len()));
        let head = parts.first()?;
        let count = number(head)?;
        Some(match head.first()? {
            0 => Self::Begin(count as u8),
            1 => Self::Turn(count as u8, messages),
            2 => Self::Put(Kind::Items, count as u32),
            3 => Self::Put(Kind::Tips, count as u32),
            4 => Self::Outcome(count as u8),
            5 => Self::Memory,
            _ => return None,
        })
    }
}

impl Reply {
    fn write(&self) -> Vec<Bytes> {
        match self {
            Self::Done => vec![tagged(0, 0)],
            Self::Said(messages) => std::iter::once(tagged(1, 0)).chain(messages.iter().cloned()).collect(),
            Self::Received(count) => vec![tagged(2, *count)],
            Self::Memory(opened, peak) => vec![tagged(3, *opened), tagged(3, *peak)],
        }
    }

    fn read(mut parts: Vec<Bytes>) -> Option<Self> {
        let rest = parts.split_off(1.min(parts.len()));
        let head = parts.first()?;
        let count = number(head)?;
        Some(match head.first()? {
            0 => Self::Done,
            1 => Self::Said(rest),
            2 => Self::Received(count),
            3 => Self::Memory(count, number(rest.first()?)?),
            _ => return None,
        })
    }
}
