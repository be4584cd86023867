//! A proxy between two nodes that cuts: it forwards bytes, and ends a connection after as many reads as its script says.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// What becomes of the next connection.
#[derive(Clone, Copy, Debug)]
enum Script {
    /// It ends at once.
    Closed,
    /// It stays as long as both ends want.
    Open,
    /// It is cut after this many reads from one side, in turn the one that dialled (0) and the one that listens (1).
    Cutting { reads: [u32; 2], side: usize },
}

/// What is left of one connection.
#[derive(Debug)]
struct Connection {
    ends: [TcpStream; 2],
    /// The side whose reads count, and how many are left.
    left: Option<(usize, u32)>,
}

impl Connection {
    fn end(&self) {
        // Who is gone already needs no end.
        self.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
}

#[derive(Debug)]
struct State {
    target: Option<SocketAddr>,
    script: Script,
    /// The connections that are there, by number.
    connections: BTreeMap<u64, Connection>,
    count: u64,
    cuts: u32,
    /// Bytes that were forwarded, both ways.
    bytes: u64,
    over: bool,
}

/// The proxy. It ends with all its connections when this is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// A proxy on a port of its own, closed and without a target.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (script, connections) = (Script::Closed, BTreeMap::new());
        let state = State { target: None, script, connections, count: 0, cuts: 0, bytes: 0, over: false };
        let state = Arc::new(Mutex::new(state));
        let serving = state.clone();
        std::thread::spawn(move || {
            for dialled in listener.incoming().map_while(Result::ok) {
                if lock(&serving).over {
                    break;
                }
                connect(&serving, dialled);
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it leads to.
    pub(crate) fn lead_to(&self, target: &str) {
        lock(&self.state).target = Some(target.parse().unwrap());
    }

    /// From now on nothing is cut.
    pub(crate) fn open(&self) {
        let mut state = lock(&self.state);
        state.script = Script::Open;
        state.connections.values_mut().for_each(|connection| connection.left = None);
    }

    /// Ends every connection, now and from now on. These are no cuts of a script.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.script = Script::Closed;
        std::mem::take(&mut state.connections).values().for_each(Connection::end);
    }

    /// Cuts the connections to come: the first after one read, the next two of each side after two reads, and so on.
    /// The seed says which side begins.
    pub(crate) fn cut_in_turn(&self, seed: u64) {
        self.close();
        let side = usize::from(!seed.is_multiple_of(2));
        lock(&self.state).script = Script::Cutting { reads: [1, 1], side };
    }

    /// How many connections a script has cut so far.
    pub(crate) fn cuts(&self) -> u32 {
        lock(&self.state).cuts
    }

    /// How many bytes were forwarded so far, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.state).bytes
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
        lock(&self.state).over = true;
        // Wakes the thread that accepts, which then sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn connect(shared: &Arc<Mutex<State>>, dialled: TcpStream) {
    let mut state = lock(shared);
    let left = match &mut state.script {
        Script::Closed => return,
        Script::Open => None,
        Script::Cutting { reads, side } => {
            let counted = *side;
            let left = reads[counted];
            reads[counted] += 1;
            *side = 1 - counted;
            Some((counted, left))
        }
    };
    let Some(Ok(reached)) = state.target.map(TcpStream::connect) else { return };
    let pair = || [dialled.try_clone().unwrap(), reached.try_clone().unwrap()];
    for end in [&dialled, &reached] {
        end.set_nodelay(true).unwrap();
    }
    state.count += 1;
    let number = state.count;
    state.connections.insert(number, Connection { ends: pair(), left });
    for side in 0..2 {
        let (ends, shared) = (pair(), shared.clone());
        std::thread::spawn(move || forward(side, ends, &shared, number));
    }
}

/// Forwards what comes from one side until it, or the connection, is over.
fn forward(side: usize, mut ends: [TcpStream; 2], shared: &Mutex<State>, number: u64) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match ends[side].read(&mut bytes) {
            Ok(count) if count > 0 && ends[1 - side].write_all(&bytes[..count]).is_ok() => {
                lock(shared).bytes += count as u64;
            }
            _ => break,
        }
        if !goes_on(&mut lock(shared), side, number) {
            return;
        }
    }
    // One side is gone: so is the connection.
    if let Some(connection) = lock(shared).connections.remove(&number) {
        connection.end();
    }
}

/// Counts one read from this side; cuts the connection when it was the last.
fn goes_on(state: &mut State, side: usize, number: u64) -> bool {
    let Some(connection) = state.connections.get_mut(&number) else { return false };
    match &mut connection.left {
        Some((counted, left)) if *counted == side => {
            *left -= 1;
            if *left > 0 {
                return true;
            }
            connection.end();
            state.connections.remove(&number);
            state.cuts += 1;
            false
        }
        _ => true,
    }
}
