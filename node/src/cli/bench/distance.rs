//! The part of `bench link` that needs a way between the ends: what a further path costs near and far away, and how long
//! messages stand still when a connection breaks. Spec: LK-36, LK-38, LK-82 to LK-84

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sealtide_identity::RelayHint;
use sealtide_link::{Link, Session};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::link::{Figures, OpenDoor, door_of, failed, link_with, ms, new_link, take};
use super::relayed;
use crate::failure::Failure;

/// Further paths that are measured on this machine.
const PATHS: usize = 100;
/// Handshakes of each kind at each distance.
const DISTANT: usize = 5;
/// Bytes sent there and back to measure a way.
const ECHOES: usize = 20;
/// Round trips, in ms.
const ROUND_TRIPS_MS: [u64; 3] = [10, 50, 150];
/// Connections that are reset, and that are swallowed by the way.
const RESETS: usize = 20;
const BLACK_HOLES: usize = 5;
/// Within this time a fault shows, if it shows at all.
const MEASURED: Duration = Duration::from_secs(6);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages this far apart show how long nothing arrives.
const TICK: Duration = Duration::from_millis(1);
/// Between a recovery and the next fault.
const CALM: Duration = Duration::from_millis(300);
/// Pieces under way in one direction of a distant way.
const PIECES: usize = 4_096;

/// What a way does to the connections over it.
#[derive(Clone, Copy, Default)]
struct Fate {
    /// Connections with a smaller number are reset.
    reset_below: u64,
    /// What comes over connections with a smaller number is lost.
    lost_below: u64,
    /// Nobody gets through any more.
    is_closed: bool,
}

/// A way to an address over which everything takes its time, the opening of a connection included.
struct Way {
    address: SocketAddr,
    fate: watch::Sender<Fate>,
    count: watch::Receiver<u64>,
    accepting: JoinHandle<()>,
}

impl Way {
    fn of(listener: TcpListener, target: SocketAddr, round_trip: Duration) -> std::io::Result<Self> {
        let (address, fate) = (listener.local_addr()?, watch::Sender::new(Fate::default()));
        let (told, count) = watch::channel(0);
        let fates = fate.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if fates.borrow().is_closed {
                    continue;
                }
                let number = *told.borrow();
                told.send_replace(number + 1);
                tokio::spawn(pass(near, target, round_trip, number, fates.subscribe()));
            }
        });
        Ok(Self { address, fate, count, accepting })
    }

    /// Resets every connection that is there.
    fn reset(&self) {
        let below = *self.count.borrow();
        self.fate.send_modify(|fate| fate.reset_below = below);
    }

    /// Whether new connections get through.
    fn open(&self, is_open: bool) {
        self.fate.send_modify(|fate| fate.is_closed = !is_open);
    }

    /// Loses everything that comes over the connections that are there; later ones are fine.
    fn swallow(&self) {
        let below = *self.count.borrow();
        self.fate.send_modify(|fate| fate.lost_below = below);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(near: TcpStream, target: SocketAddr, round_trip: Duration, number: u64, fate: watch::Receiver<Fate>) {
    // As long as the far end would take to answer the first packet.
    tokio::time::sleep(round_trip).await;
    let Ok(far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        let _slower = stream.set_nodelay(true);
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut reset = fate.clone();
    tokio::select! {
        () = late(near_in, &far_out, round_trip / 2, number, fate.clone()) => {}
        () = late(far_in, &near_out, round_trip / 2, number, fate) => {}
        _ = reset.wait_for(|fate| number < fate.reset_below) => {
            for half in [near_out, far_out] {
                let _in_order = half.as_ref().set_zero_linger();
                half.forget();
            }
        }
    }
}

/// One direction: everything comes out as much later as the way is long.
async fn late(mut from: OwnedReadHalf, to: &OwnedWriteHalf, delay: Duration, number: u64, fate: watch::Receiver<Fate>) {
    let (put, mut get) = mpsc::channel::<(Instant, Bytes)>(PIECES);
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if number < fate.borrow().lost_below {
                continue;
            }
            if put.send((Instant::now() + delay, Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, mut bytes)) = get.recv().await {
            tokio::time::sleep_until(due.into()).await;
            while !bytes.is_empty() {
                if to.as_ref().writable().await.is_err() {
                    return;
                }
                match to.as_ref().try_write(&bytes) {
                    Ok(written) => drop(bytes.split_to(written)),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
    };
    tokio::join!(reading, writing);
}

/// A listening link that is met over a way only.
async fn behind(round_trip: Duration) -> Result<(OpenDoor, Way), Failure> {
    // Its address is told to peers, so it must be known before the door is.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let told = listener.local_addr()?;
    let door = door_of(link_with(|config| config.announce = vec![told])?).await?;
    let way = Way::of(listener, door.address, round_trip)?;
    Ok((door, way))
}

async fn meet(from: &Link, door: &OpenDoor, way: &Way) -> Result<(Session, Session), Failure> {
    let ours = from.dial(door.target_at(way.address)).await.map_err(failed)?;
    Ok((ours, door.accept().await?))
}

/// A further path of a session: from the wish to its use, and of this the messages of the re-handshake alone.
// Measures: LK-82, LK-83
pub(super) async fn further_paths(door: &OpenDoor) -> Result<Value, Failure> {
    let dialler = new_link()?;
    let ours = dialler.dial(door.target()).await.map_err(failed)?;
    let _theirs = door.accept().await?;
    let (mut usable, mut messages) = (Vec::new(), Vec::new());
    for _ in 0..PATHS {
        let (began, before) = (Instant::now(), dialler.metrics().rehandshake_us);
        dialler.further_path(&ours).await.map_err(failed)?;
        usable.push(ms(began));
        messages.push((dialler.metrics().rehandshake_us - before) as f64 / 1000.0);
        settle(&ours).await?;
    }
    dialler.shutdown().await;
    Ok(json!({"usable_ms": Figures(usable).shown(), "messages_ms": Figures(messages).shown()}))
}

/// Waits until the session has put paths away that it needs no longer, so that the next one finds a place.
async fn settle(session: &Session) -> Result<(), Failure> {
    until(session, |session| session.info().paths <= 2).await
}

/// What a byte takes there and back over such a way: timers are a millisecond or two late, on each of the ten ways of a handshake.
async fn round_trips(round_trip: Duration) -> Result<Figures, Failure> {
    let (listener, echo) = (TcpListener::bind(("127.0.0.1", 0)).await?, TcpListener::bind(("127.0.0.1", 0)).await?);
    let way = Way::of(listener, echo.local_addr()?, round_trip)?;
    let mut near = TcpStream::connect(way.address).await?;
    let (mut far, _) = echo.accept().await?;
    let mut taken = Vec::new();
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    for _ in 0..ECHOES {
        let began = Instant::now();
        near.write_u8(1).await?;
        let byte = far.read_u8().await?;
        far.write_u8(byte).await?;
        near.read_u8().await?;
        taken.push(ms(began));
    }
    Ok(Figures(taken))
}

/// Both handshakes over a long way, with what LK-84 allows at the round trip that was measured.
// Measures: LK-84
pub(super) async fn distances() -> Result<Value, Failure> {
    let mut all = Vec::new();
    for round_trip in ROUND_TRIPS_MS {
        let measured = round_trips(Duration::from_millis(round_trip)).await?.shown();
        let took = measured["p50"].as_f64().unwrap_or_default();
        let (door, way) = behind(Duration::from_millis(round_trip)).await?;
        let (mut full, mut again) = (Vec::new(), Vec::new());
        for _ in 0..DISTANT {
            let dialler = new_link()?;
            let began = Instant::now();
            let (ours, _theirs) = meet(&dialler, &door, &way).await?;
            full.push(ms(began));
            let began = Instant::now();
            dialler.further_path(&ours).await.map_err(failed)?;
            again.push(ms(began));
            dialler.shutdown().await;
        }
        door.link.shutdown().await;
        all.push(json!({
            "round_trip_ms": round_trip,
            "measured_ms": measured,
            "full_ms": Figures(full).shown(),
            "full_allowed_ms": 5.0 * took + 20.0,
            "rehandshake_ms": Figures(again).shown(),
            "rehandshake_allowed_ms": 4.0 * took + 10.0,
        }));
    }
    Ok(all.into())
}

/// How long nothing arrives when the only connection of a session ends by a reset, or begins to lose what is sent over it:
/// the longest way of a message around the fault, while both ends have something to say.
// Spec: LK-36, LK-38
pub(super) async fn recovery() -> Result<Value, Failure> {
    let (door, way) = behind(Duration::ZERO).await?;
    let dialler = new_link()?;
    let (ours, theirs) = meet(&dialler, &door, &way).await?;
    let reset = pauses(&ours, &theirs, RESETS, |_| true, || way.reset()).await?;
    let swallowed = pauses(&ours, &theirs, BLACK_HOLES, |_| true, || way.swallow()).await?;
    dialler.shutdown().await;
    door.link.shutdown().await;
    Ok(json!({"reset_ms": reset.shown(), "black_hole_ms": swallowed.shown()}))
}

/// The same with a path over a relay standing by, once for each fault: after one the direct path is left alone for longer
/// than a bench should take.
// Spec: LK-36
pub(super) async fn fallback(relay: &RelayHint) -> Result<Value, Failure> {
    let reset = one_fallback(relay, Way::reset).await?;
    let swallowed = one_fallback(relay, Way::swallow).await?;
    Ok(json!({"reset_ms": reset.shown(), "black_hole_ms": swallowed.shown()}))
}

async fn one_fallback(relay: &RelayHint, fault: impl Fn(&Way)) -> Result<Figures, Failure> {
    let (door, way) = behind(Duration::ZERO).await?;
    let dialler = new_link()?;
    for link in [&door.link, &dialler] {
        link.use_relay(relay, None);
        relayed::log_in(link).await?;
    }
    let (ours, theirs) = meet(&dialler, &door, &way).await?;
    // While nobody gets through directly the session finds its way over the relay, and keeps it.
    way.open(false);
    way.reset();
    until(&ours, |session| session.info().path == Some("relay")).await?;
    way.open(true);
    let ready = |session: &Session| {
        let info = session.info();
        info.path == Some("direct") && info.paths == 2
    };
    until(&ours, ready).await?;
    let pause = pauses(&ours, &theirs, 1, ready, || fault(&way)).await?;
    dialler.shutdown().await;
    door.link.shutdown().await;
    Ok(pause)
}

async fn until(session: &Session, holds: impl Fn(&Session) -> bool) -> Result<(), Failure> {
    let began = Instant::now();
    while !holds(session) {
        if began.elapsed() > PATIENCE {
            return Err(failed(format!("the path that was waited for did not come: {:?}", session.info())));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

async fn pauses(
    from: &Session,
    to: &Session,
    count: usize,
    ready: impl Fn(&Session) -> bool,
    fault: impl Fn(),
) -> Result<Figures, Failure> {
    let channel = from.open(1, "ticks").map_err(failed)?;
    channel.send(Bytes::new()).await.map_err(failed)?;
    let other = to.accept_channel().await.ok_or_else(|| failed("no channel"))?;
    take(&other).await?;
    let sending = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            if channel.send(Bytes::from_static(&[7; 64])).await.is_err() {
                return;
            }
        }
    });
    let mut all = Vec::new();
    for _ in 0..count {
        // A while of calm, the fault, and the first wait that is longer than any other: the one that the fault made.
        let calm = Instant::now();
        while calm.elapsed() < CALM || !(ready(from) && ready(to)) {
            take(&other).await?;
            if calm.elapsed() > PATIENCE {
                return Err(failed("the path that breaks did not come back"));
            }
        }
        fault();
        let (began, mut longest, mut last) = (Instant::now(), 0.0f64, Instant::now());
        let mut over = None;
        while over.is_none_or(|over: Instant| over.elapsed() < CALM) {
            take(&other).await?;
            let waited = ms(std::mem::replace(&mut last, Instant::now()));
            if waited > longest && waited > 20.0 {
                over = Some(Instant::now());
            }
            longest = longest.max(waited);
            if over.is_none() && began.elapsed() > MEASURED {
                // The other path took over within what a busy machine pauses by itself.
                over = Some(began);
            }
        }
        all.push(longest);
    }
    sending.abort();
    Ok(Figures(all))
}
