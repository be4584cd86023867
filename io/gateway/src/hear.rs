//! What a session hears although nobody on it asked: changes that others made, keys that moved, its own end.
//! Spec: gateway §2, §5.
//!
//! ```text
//! rung kept ──keys moved, rung not kept──▶ notice, waits ──grace over──▶ close 4409
//!     ▲                                         │
//!     └────────── keys moved, rung kept ────────┘
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sealtide_ibgib::json::{Js, JsObject, write};
use sealtide_releases::HSL_NORMAL;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::app::{App, DoorEvent, KeyChange, Notice};
use crate::connection::{Hear, Reply, stopped};
use crate::frames::{Class, CloseCode};
use crate::ladder::Rung;
use crate::lifecycle::{Lives, Load, Phase};
use crate::session::Broadcast;
use crate::settings::Door;
use crate::spoken::Spoken;
use crate::standing::Standing;
use crate::token::Admission;

/// How often a session looks whether the end of its keys is near, though nothing was said.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// How long before their end keys are said to be deprecated, in milliseconds.
const DEPRECATE_MS: u64 = 7 * 86_400_000;
const DAY_MS: u64 = 86_400_000;
const HSL_WARNING: &str = "#FF8C00";
/// Overload: the session is too far behind.
const BEHIND: CloseCode = CloseCode(1013);

/// Turns what happens behind the door into what sessions hear.
pub(crate) async fn pass_on(
    mut notices: broadcast::Receiver<Notice>,
    others: broadcast::Sender<Broadcast>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let notice = tokio::select! {
            notice = notices.recv() => notice,
            () = stopped(&mut stop) => return,
        };
        let heard = match notice {
            Ok(Notice::KeyRotated(change)) => {
                Broadcast::Keys { spoken: Some(Arc::new(Spoken::new(key_rotated(&change)))) }
            }
            Ok(Notice::VersionChanged(text)) => {
                Broadcast::Said { from: u64::MAX, spoken: Arc::new(Spoken::new(text.to_string())) }
            }
            // What was missed may have been about keys.
            Ok(Notice::KeysMoved) | Err(broadcast::error::RecvError::Lagged(_)) => Broadcast::Keys { spoken: None },
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let _ = others.send(heard);
    }
}

/// Who hears, and what counts for them.
pub(crate) struct Listener {
    pub(crate) number: u64,
    pub(crate) rung: Rung,
    pub(crate) standing: Arc<Standing>,
    pub(crate) lives: Arc<Lives>,
    pub(crate) app: Arc<dyn App>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) grace: Duration,
    /// The zero of the clock that never steps.
    pub(crate) epoch: Instant,
}

/// One session, as far as it is spoken to.
pub(crate) struct Hearing {
    listener: Listener,
    others: broadcast::Receiver<Broadcast>,
    looks: Interval,
    closes: Option<Instant>,
    told_day: Option<u64>,
    /// The end that was announced already.
    told_end: Option<u64>,
    /// What follows from one thing that was heard and was not said yet.
    waiting: VecDeque<Reply>,
    /// The end was said, and is not said twice.
    over: bool,
}

impl Hearing {
    /// From here on everything is heard. The first look is now, so that it does not run into what is said later; `door` is that of
    /// now too, for the settings may have been read again since the request, and its sign-in may have ended.
    pub(crate) fn begin(listener: Listener, others: broadcast::Receiver<Broadcast>, door: &Door) -> Self {
        let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut closes, mut told_day) = (None, None);
        let principal = listener.standing.principal();
        let over = !door.knows(&principal) || !listener.admission.sign_ins.stands(&principal, listener.mono_ms());
        let waiting = match over {
            true => vec![Reply::Close(CloseCode::EXPIRED)],
            false => listener.look(&mut closes, &mut told_day),
        };
        Self { listener, others, looks, closes, told_day, told_end: None, waiting: waiting.into(), over }
    }
}

impl Hear for Hearing {
    // Spec: GW-29
    async fn next(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.waiting.pop_front() {
                return Some(reply);
            }
            if self.over {
                return None;
            }
            let closes = self.closes;
            let over = async {
                match closes {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let listener = &self.listener;
            let ends = listener.standing.ends_mono_ms();
            let is_told = ends.is_some() && self.told_end == ends;
            let due = if is_told { ends } else { listener.standing.renew_at_mono_ms() };
            let aged = async {
                match due {
                    Some(at) => sleep_until(listener.epoch + Duration::from_millis(at)).await,
                    None => std::future::pending().await,
                }
            };
            let replies = tokio::select! {
                // What was said is heard before what follows from it.
                biased;
                heard = self.others.recv() => match heard {
                    Ok(Broadcast::Said { from, .. }) if from == listener.number || !listener.standing.may_read() => continue,
                    Ok(Broadcast::Said { spoken, .. }) => return Some(Reply::Spoken(spoken)),
                    Ok(Broadcast::Node { spoken }) if listener.standing.watches() => return Some(Reply::Spoken(spoken)),
                    Ok(Broadcast::Node { .. }) => continue,
                    Ok(Broadcast::Keys { spoken }) => {
                        let rotated = spoken.map(Reply::Spoken);
                        rotated.into_iter().chain(listener.look(&mut self.closes, &mut self.told_day)).collect()
                    }
                    Ok(Broadcast::Settings(door)) if door.knows(&listener.standing.principal()) => continue,
                    Ok(Broadcast::SignedOut(sign_in)) if listener.standing.principal().sign_in != Some(sign_in) => continue,
                    Ok(Broadcast::Settings(_) | Broadcast::SignedOut(_)) => {
                        self.over = true;
                        vec![Reply::Close(CloseCode::EXPIRED)]
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => vec![Reply::Close(BEHIND)],
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                _ = self.looks.tick() => listener.look(&mut self.closes, &mut self.told_day),
                () = aged => match listener.standing.ends_mono_ms() {
                    // Somebody renewed it in the meantime.
                    found if found != ends => continue,
                    Some(end) if !is_told => {
                        self.told_end = Some(end);
                        listener.lives.step(listener.number, Phase::Renew, &Load::default(), listener.mono_ms());
                        vec![said(ending(listener.wall_ms_of(end)))]
                    }
                    _ => {
                        self.over = true;
                        vec![Reply::Close(CloseCode::EXPIRED)]
                    }
                },
                () = over => {
                    listener.app.note(listener.withdrawn());
                    self.over = true;
                    vec![Reply::Close(CloseCode::WITHDRAWN)]
                }
            };
            self.waiting.extend(replies);
        }
    }
}

impl Listener {
    /// Whether the rung can still be kept, and whether its keys end soon: told once a day.
    fn look(&self, closes: &mut Option<Instant>, told_day: &mut Option<u64>) -> Vec<Reply> {
        let now = self.app.wall_ms();
        if !self.app.keys().allow(self.rung) {
            if closes.is_some() {
                return Vec::new();
            }
            *closes = Some(Instant::now() + self.grace);
            return vec![said(deprecate(now + u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX)))];
        }
        *closes = None;
        let ends = self.app.key_desk().and_then(|desk| desk.list().not_after_of(self.rung.number()));
        match ends {
            Some(ends) if now + DEPRECATE_MS >= ends && *told_day != Some(now / DAY_MS) => {
                *told_day = Some(now / DAY_MS);
                vec![said(deprecate(ends))]
            }
            _ => Vec::new(),
        }
    }

    fn mono_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall_ms_of(&self, mono_ms: u64) -> u64 {
        self.app.wall_ms() + mono_ms.saturating_sub(self.mono_ms())
    }

    fn withdrawn(&self) -> DoorEvent {
        DoorEvent {
            name: "ws:subproto:withdrawn",
            hsl: HSL_WARNING,
            members: vec![("offered", self.rung.to_string()), ("reason", "keys".to_owned())],
            request_id: None,
        }
    }
}

impl crate::app::KeyList {
    /// When the version with the number of a rung ends, when that is set.
    fn not_after_of(&self, rung: u16) -> Option<u64> {
        self.versions.iter().find(|listed| listed.version.number() == rung)?.not_after
    }
}

fn said(text: String) -> Reply {
    Reply::Text(text, Class::Public)
}

fn key_rotated(change: &KeyChange) -> String {
    let mut object = JsObject::new();
    object.set("type", Js::text("key_rotated"));
    object.set("from", Js::text(change.from.to_string()));
    object.set("to", Js::text(change.to.to_string()));
    object.set("epoch", Js::Number(change.epoch as f64));
    object.set("hsl", Js::text(HSL_NORMAL));
    write(&Js::Object(object)).unwrap_or_default()
}

fn deprecate(not_after: u64) -> String {
    notice("KEY_DEPRECATE", "Key Deprecate [HSL:#FF8C00]", not_after)
}

fn ending(not_after: u64) -> String {
    notice("SESSION_RENEW", "Session Renew [HSL:#FF8C00]", not_after)
}

fn notice(code: &str, message: &str, not_after: u64) -> String {
    let mut object = JsObject::new();
    let texts = [("type", "notice"), ("code", code), ("message", message)];
    for (name, value) in texts {
        object.set(name, Js::text(value));
    }
    object.set("hsl", Js::text(HSL_WARNING));
    object.set("notAfter", Js::Number(not_after as f64));
    write(&Js::Object(object)).unwrap_or_default()
}
