//! Two ends of a session and the connections between them: what is refused, what is lost, who goes first.

use std::collections::VecDeque;

use proptest::prelude::*;
use sealtide_crypto::{Entropy, SeededEntropy, hmac_sha256};
use sealtide_identity::NodeId;

use super::message::{Complete, Reject, Request, Response};
use super::ratchet::Ends;
use super::*;
use crate::handshake::{Binding, Exporter, PipeKind, ResumeSecret};
use crate::session::PathId;

#[expect(clippy::disallowed_methods, reason = "tests take their size from the environment")]
fn scale() -> u64 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// The exporter of one TLS connection, and what both tags are bound to.
#[derive(Clone, Copy)]
pub(super) struct Tls(pub(super) u64);

impl Exporter for Tls {
    fn export(&self, label: &str, context: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.0.to_be_bytes(), &[label.as_bytes(), &[0], context])
    }
}

impl Tls {
    pub(super) fn binding(self) -> Binding {
        let cb = self.export("cb", b"");
        Binding::channel(PipeKind::Direct, cb, [0xC1; 32], [0x51; 32]).unwrap()
    }
}

/// Both ends of a session that was just made; end 0 initiated it and has the smaller id.
pub(super) fn pair() -> [Ratchet; 2] {
    let ids = [1u8, 2].map(|byte| NodeId::from_bytes([byte; 32]));
    [0, 1].map(|end| {
        let ends = Ends { session_id: [9; 16], own: ids[end], peer: ids[1 - end], initiator: end == 0 };
        Ratchet::at_start(ends, ResumeSecret::new([7; 32]))
    })
}

fn zero(next: u64) -> u64 {
    next
}

/// How far one re-handshake gets before its connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Request,
    Response,
    Complete,
    Ack,
    Nowhere,
}

const CUTS: [Cut; 5] = [Cut::Request, Cut::Response, Cut::Complete, Cut::Ack, Cut::Nowhere];

/// One re-handshake of `dialler` on a connection of its own; an error is that of the end that gave up first.
fn attempt(ends: &mut [Ratchet; 2], dialler: usize, tls: Tls, cut: Cut) -> Result<(), RehandshakeError> {
    let mut entropy = SeededEntropy::new(tls.0);
    let listener = 1 - dialler;
    let (mut d, mut frame) = Dialler::start(&mut ends[dialler], &tls.binding(), 5, &mut entropy).unwrap();
    for _ in 0..2 {
        if cut == Cut::Request {
            d.abandon(&mut ends[dialler]);
            return Ok(());
        }
        let request = Request::read(&frame).unwrap();
        let answer = Listener::answer(&mut ends[listener], &tls.binding(), &request, 6, &tls, &mut entropy);
        let (l, answer) = match answer {
            Ok((l, frame)) => (Some(l), frame),
            Err(error) => (None, error.reply().expect("a REJECT")),
        };
        if cut == Cut::Response {
            d.abandon(&mut ends[dialler]);
            l.iter().for_each(|l| l.abandon(&mut ends[listener]));
            return Ok(());
        }
        match d.handle(&mut ends[dialler], &answer, &tls, &zero, &mut entropy)? {
            DialStep::Send(again) => frame = again,
            DialStep::Done { complete, attachment } => {
                let l = l.expect("it agreed");
                if cut == Cut::Complete {
                    l.abandon(&mut ends[listener]);
                    return Ok(());
                }
                let theirs = l.complete(&mut ends[listener], &complete)?;
                assert_eq!((theirs.path, theirs.epoch), (attachment.path, attachment.epoch));
                assert_eq!((attachment.peer_rx_next, theirs.peer_rx_next), (6, 5));
                if cut == Cut::Nowhere {
                    ends[dialler].heard(attachment.path);
                }
                return Ok(());
            }
        }
    }
    panic!("neither agreed nor gave up")
}

fn agree(ends: &[Ratchet; 2]) -> bool {
    ends[0].epoch == ends[1].epoch
        && ends[0].secret == ends[1].secret
        && ends.iter().all(|end| end.before.is_none() && !end.is_busy())
}

/// Every sequence of re-handshakes by either end, each cut at every point: the next one that is not cut leads to one
/// path and equal secrets, without a full handshake.
// Proves: LK-32
#[test]
fn ratchet_crash() {
    const DEPTH: u32 = 4;
    let kinds = 2 * CUTS.len();
    for script in 0..kinds.pow(DEPTH) {
        let mut ends = pair();
        let mut secrets = vec![ends[0].secret.clone()];
        let steps: Vec<_> = (0..DEPTH).map(|at| script / kinds.pow(at) % kinds).collect();
        for (at, step) in steps.iter().enumerate() {
            let (dialler, cut) = (step % 2, CUTS[step / 2]);
            let tls = Tls((script as u64) << 8 | at as u64);
            attempt(&mut ends, dialler, tls, cut).unwrap_or_else(|error| panic!("{steps:?}, step {at}: {error}"));
        }
        for dialler in [0, 1] {
            let mut last = ends.clone();
            attempt(&mut last, dialler, Tls(u64::MAX - dialler as u64), Cut::Nowhere)
                .unwrap_or_else(|error| panic!("{steps:?}, then {dialler}: {error}"));
            assert!(agree(&last), "{steps:?}, then {dialler}");
            secrets.push(last[0].secret.clone());
        }
        assert!(secrets[1] != secrets[0] && secrets[2] != secrets[0]);
    }
}

/// A listener has a candidate, and the same dialler comes on a second connection: only the newer one counts.
// Proves: LK-32
#[test]
fn ratchet_crash_two_parallel_dials() {
    for cut_first in [false, true] {
        let [mut d, mut l] = pair();
        let mut entropy = SeededEntropy::new(1);
        let (first, second) = (Tls(1), Tls(2));
        let (mut one, frame) = Dialler::start(&mut d, &first.binding(), 1, &mut entropy).unwrap();
        assert!(Dialler::start(&mut d, &second.binding(), 1, &mut entropy).is_err(), "one at a time");
        let request = Request::read(&frame).unwrap();
        let (candidate, late) = Listener::answer(&mut l, &first.binding(), &request, 1, &first, &mut entropy).unwrap();
        // No answer within 3 s: the next connection is used, while the answer is on its way.
        one.abandon(&mut d);
        let (mut two, frame) = Dialler::start(&mut d, &second.binding(), 1, &mut entropy).unwrap();
        assert_eq!(one.handle(&mut d, &late, &first, &zero, &mut entropy), Err(RehandshakeError::Yielded));
        if cut_first {
            candidate.abandon(&mut l);
        }
        let request = Request::read(&frame).unwrap();
        let (newer, answer) = Listener::answer(&mut l, &second.binding(), &request, 1, &second, &mut entropy).unwrap();
        let step = two.handle(&mut d, &answer, &second, &zero, &mut entropy).unwrap();
        let DialStep::Done { complete, attachment } = step else { panic!("{step:?}") };
        // What ends the first connection does not touch the second.
        candidate.abandon(&mut l);
        assert_eq!(newer.complete(&mut l, &complete).unwrap().path, attachment.path);
        d.heard(attachment.path);
        assert!(agree(&[d, l]));
    }
}

/// A copy of everything that one end keeps opens nothing after one honest re-handshake that the thief did not see.
// Proves: LK-32
#[test]
fn a_stolen_secret_opens_nothing_after_one_honest_re_handshake() {
    for thief in [0, 1] {
        let mut ends = pair();
        let stolen = ends[thief].clone();
        attempt(&mut ends, 0, Tls(1), Cut::Nowhere).unwrap();
        let mut robbed = ends.clone();
        robbed[thief] = stolen.clone();
        let error = attempt(&mut robbed, thief, Tls(2), Cut::Nowhere).unwrap_err();
        assert_eq!(error, RehandshakeError::Rejected { code: RejectCode::Epoch as u16, retry_ms: 0 });
        // With the right number, the tag is wrong.
        robbed = ends.clone();
        robbed[thief] = Ratchet { epoch: 1, ..stolen };
        let error = attempt(&mut robbed, thief, Tls(3), Cut::Nowhere).unwrap_err();
        assert_eq!(error, RehandshakeError::Rejected { code: RejectCode::BadTag as u16, retry_ms: 0 });
    }
}

/// One good re-handshake of end 0, frame by frame.
fn frames(tls: Tls) -> [Vec<u8>; 3] {
    let [mut d, mut l] = pair();
    let mut entropy = SeededEntropy::new(3);
    let (mut dialler, request) = Dialler::start(&mut d, &tls.binding(), 5, &mut entropy).unwrap();
    let read = Request::read(&request).unwrap();
    let (_, response) = Listener::answer(&mut l, &tls.binding(), &read, 6, &tls, &mut entropy).unwrap();
    let step = dialler.handle(&mut d, &response, &tls, &zero, &mut entropy).unwrap();
    let DialStep::Done { complete, .. } = step else { panic!("{step:?}") };
    [request, response, complete]
}

// Proves: LK-31
#[test]
fn rehandshake_negative() {
    let (here, there) = (Tls(1), Tls(2));
    let [request, response, _] = frames(here);
    let mut entropy = SeededEntropy::new(3);
    let answer = |l: &mut Ratchet, binding: &Binding, request: &Request| {
        Listener::answer(l, binding, request, 6, &here, &mut SeededEntropy::new(3)).map(|(listener, _)| listener)
    };
    let refused = |code| RehandshakeError::Refused(code);
    let read = Request::read(&request).unwrap();

    let [_, l] = pair();
    assert!(answer(&mut l.clone(), &here.binding(), &read).is_ok());
    assert_eq!(answer(&mut l.clone(), &there.binding(), &read).unwrap_err(), refused(RejectCode::BadTag), "other TLS");
    let swapped = Binding::channel(PipeKind::Direct, here.export("cb", b""), [0x51; 32], [0xC1; 32]).unwrap();
    assert_eq!(answer(&mut l.clone(), &swapped, &read).unwrap_err(), refused(RejectCode::BadTag), "certificates");
    let [mut d, _] = pair();
    assert_eq!(answer(&mut d, &here.binding(), &read).unwrap_err(), refused(RejectCode::BadTag), "reflected");
    let relayed = Binding::channel(PipeKind::Relay, here.export("cb", b""), [0xC1; 32], [0x51; 32]).unwrap();
    assert!(matches!(answer(&mut l.clone(), &relayed, &read), Err(RehandshakeError::Malformed { .. })), "kind");

    // Every byte of REQUEST is covered.
    for at in 8..request.len() {
        let mut wrong = request.clone();
        wrong[at] ^= 1;
        let Ok(read) = Request::read(&wrong) else { continue };
        let error = answer(&mut l.clone(), &here.binding(), &read).unwrap_err();
        let expected = match at - 8 {
            0..16 => RejectCode::Unknown,
            16..20 => RejectCode::Epoch,
            _ => RejectCode::BadTag,
        };
        assert_eq!(error, refused(expected), "byte {at}");
    }
    // A path number of the listener's own side, or an old one, under a right tag.
    let numbered = |path: u32, seen: u32| {
        let [mut d, mut l] = pair();
        l.peer_path = seen;
        while d.new_path().unwrap().0 + 2 < path {}
        let (_, frame) = Dialler::start(&mut d, &here.binding(), 5, &mut SeededEntropy::new(3)).unwrap();
        answer(&mut l, &here.binding(), &Request::read(&frame).unwrap()).is_ok()
    };
    assert!(numbered(7, 5) && !numbered(5, 5) && !numbered(3, 5));

    // RESPONSE: every byte, another connection, another time.
    let [d, _] = pair();
    let take = |frame: &[u8], tls: Tls| {
        let mut d = d.clone();
        let mut entropy = SeededEntropy::new(3);
        let (mut dialler, _) = Dialler::start(&mut d, &here.binding(), 5, &mut entropy).unwrap();
        let step = dialler.handle(&mut d, frame, &tls, &zero, &mut entropy);
        assert_eq!((step.is_ok(), d.epoch), (d.epoch == 1, u32::from(step.is_ok())));
        step
    };
    assert!(take(&response, here).is_ok());
    for at in 0..response.len() {
        let mut wrong = response.clone();
        wrong[at] ^= 1;
        assert!(take(&wrong, here).is_err(), "byte {at}");
    }
    assert!(take(&request, here).is_err(), "its own REQUEST");
    let (mut late, _) = Dialler::start(&mut d.clone(), &here.binding(), 5, &mut SeededEntropy::new(4)).unwrap();
    let mut own = d.clone();
    own.dialling = Some(1);
    assert!(late.handle(&mut own, &response, &here, &zero, &mut entropy).is_err(), "replayed under another nonce");

    // COMPLETE: every byte; nothing is committed by a wrong one.
    for at in 0..=8 + 61 {
        let [mut d, mut l] = pair();
        let mut entropy = SeededEntropy::new(3);
        let (mut dialler, frame) = Dialler::start(&mut d, &here.binding(), 5, &mut entropy).unwrap();
        let read = Request::read(&frame).unwrap();
        let (listener, frame) = Listener::answer(&mut l, &here.binding(), &read, 6, &here, &mut entropy).unwrap();
        let step = dialler.handle(&mut d, &frame, &here, &zero, &mut entropy).unwrap();
        let DialStep::Done { mut complete, .. } = step else { panic!("{step:?}") };
        let wrong = at < complete.len();
        if wrong {
            complete[at] ^= 1;
        }
        assert_eq!(listener.complete(&mut l, &complete).is_err(), wrong, "byte {at}");
        assert_eq!((l.epoch, l.is_busy()), (u32::from(!wrong), false));
    }
}

#[test]
fn only_one_role_and_epoch_fit() {
    assert_eq!(RejectCode::ALL.map(|code| code as u16), [1, 2, 3, 4, 5]);
    assert_eq!(RejectCode::from_code(6), None);
    let mut ends = pair();
    ends[0].epoch = u32::MAX;
    let started = Dialler::start(&mut ends[0], &Tls(1).binding(), 1, &mut SeededEntropy::new(1));
    assert_eq!(started.unwrap_err(), StartError::Exhausted);
    let printed = format!("{:?}", pair());
    assert!(!printed.contains("7, 7"), "the secret is not printed: {printed}");
}

/// A connection between the two ends, dialled by one of them.
struct Wire {
    dialler: usize,
    tls: Tls,
    d: Option<Dialler>,
    l: Option<Listener>,
    /// To the listener, to the dialler.
    queues: [VecDeque<Vec<u8>>; 2],
}

/// Both ends dial whenever they have no path, in any order of events, one delivery at a time.
// Proves: LK-33
#[test]
fn simultaneous() {
    for seed in 0..1_000 * scale() {
        let mut dice = SeededEntropy::new(seed);
        let mut roll = move |below: u64| {
            let mut bytes = [0; 8];
            dice.fill(&mut bytes);
            u64::from_be_bytes(bytes) % below
        };
        let mut ends = pair();
        let mut attached: [Vec<PathId>; 2] = [Vec::new(), Vec::new()];
        let mut wires: Vec<Wire> = Vec::new();
        let mut dials = [0; 2];
        for _ in 0..2_000 {
            let quiet = wires.iter().all(|wire| wire.queues.iter().all(VecDeque::is_empty));
            if attached.iter().all(|paths| !paths.is_empty()) && quiet {
                break;
            }
            if roll(3) == 0 {
                let end = roll(2) as usize;
                let tls = Tls(seed << 16 | wires.len() as u64);
                let mut entropy = SeededEntropy::new(tls.0);
                if attached[end].is_empty()
                    && dials[end] < 20
                    && let Ok((d, frame)) = Dialler::start(&mut ends[end], &tls.binding(), 1, &mut entropy)
                {
                    dials[end] += 1;
                    let queues = [[frame].into(), VecDeque::new()];
                    wires.push(Wire { dialler: end, tls, d: Some(d), l: None, queues });
                }
                continue;
            }
            if wires.is_empty() {
                continue;
            }
            let at = roll(wires.len() as u64) as usize;
            let wire = &mut wires[at];
            let (to_listener, dialler, listener) = (roll(2) == 0, wire.dialler, 1 - wire.dialler);
            let Some(frame) = wire.queues[usize::from(!to_listener)].pop_front() else { continue };
            let mut entropy = SeededEntropy::new(wire.tls.0 + 1);
            if !to_listener {
                let Some(d) = &mut wire.d else { continue };
                match d.handle(&mut ends[dialler], &frame, &wire.tls, &zero, &mut entropy) {
                    Ok(DialStep::Send(frame)) => wire.queues[0].push_back(frame),
                    Ok(DialStep::Done { complete, attachment }) => {
                        wire.queues[0].push_back(complete);
                        attached[dialler].push(attachment.path);
                    }
                    // The connection is closed: the listener sees its end.
                    Err(_) => {
                        wire.d = None;
                        wire.queues = Default::default();
                        wire.l.take().iter().for_each(|l| l.abandon(&mut ends[listener]));
                    }
                }
            } else if let Some(l) = wire.l.take() {
                let attachment = l.complete(&mut ends[listener], &frame).expect("an honest COMPLETE is taken");
                attached[listener].push(attachment.path);
                ends[dialler].heard(attachment.path);
            } else {
                let request = Request::read(&frame).unwrap();
                match Listener::answer(&mut ends[listener], &wire.tls.binding(), &request, 1, &wire.tls, &mut entropy) {
                    Ok((l, frame)) => {
                        wire.l = Some(l);
                        wire.queues[1].push_back(frame);
                    }
                    Err(error) => wire.queues[1].push_back(error.reply().expect("a REJECT")),
                }
            }
        }
        assert_eq!(attached[0], attached[1], "seed {seed}");
        assert_eq!(attached[0].len(), 1, "seed {seed}: one path");
        assert!(agree(&ends), "seed {seed}");
    }
}

proptest! {
    /// The twin of the fuzz target: any bytes are refused, or written again as they were read.
    #[test]
    fn fuzz_rehandshake(kind in 0x2Fu8..0x35, mut payload in proptest::collection::vec(any::<u8>(), 0..120), exact: bool) {
        if exact {
            let length = match kind { 0x32 => 61, 0x33 => 6, _ => 98 };
            payload.resize(length, 0);
            if kind == 0x30 { (payload[24], payload[25]) = (2, 0); }
            if kind == 0x31 { (payload[24], payload[25]) = (0, 0); }
        }
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(&payload);
        let again = match check_layout(&frame) {
            Ok(FrameType::RehandshakeRequest) => Request::read(&frame).unwrap().payload(),
            Ok(FrameType::RehandshakeResponse) => Response::read(&frame).unwrap().payload(),
            Ok(FrameType::RehandshakeComplete) => Complete::read(&frame).unwrap().frame()[8..].to_vec(),
            Ok(_) => Reject::read(&frame).unwrap().frame()[8..].to_vec(),
            Err(_) => {
                prop_assert!(!exact || !(0x30..=0x33).contains(&kind));
                return Ok(());
            }
        };
        prop_assert_eq!(again, payload);
    }
}
