//! The life of sessions: phases, tension, and what readers are told of it. Spec: gateway §11.5.
//!
//! ```text
//! INIT ──token taken──▶ AUTH ──first message──▶ ACTIVE ⇄ RENEW
//!   └───────────────────────┴────── end ──────────┴──────▶ EVICT (kept for an hour)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use sealtide_crypto::{Entropy, sha256_parts};
use sealtide_ibgib::json::{Js, JsObject, write};

/// How long an ended session is told of, in milliseconds.
const KEPT_MS: u64 = 3_600_000;
/// Ended sessions that are told of, at most.
const ENDED_MAX: usize = 10_000;
/// Tension above which a session is about to be evicted.
const EVICT_ABOVE: f64 = 0.7;

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It asks to come in.
    Init,
    /// Its token was taken.
    Auth,
    /// It talks.
    Active,
    /// It prolongs itself.
    Renew,
    /// It ended.
    Evict,
}

impl Phase {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Auth => "AUTH",
            Self::Active => "ACTIVE",
            Self::Renew => "RENEW",
            Self::Evict => "EVICT",
        }
    }

    /// Whether a session goes from here to `next`.
    // Spec: GW-83
    pub const fn leads_to(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Init, Self::Auth)
                | (Self::Auth | Self::Renew, Self::Active)
                | (Self::Active, Self::Renew)
                | (Self::Init | Self::Auth | Self::Active | Self::Renew, Self::Evict)
        )
    }

    const fn weight(self) -> f64 {
        match self {
            Self::Auth => 1.5,
            Self::Renew => 2.0,
            Self::Init | Self::Active | Self::Evict => 1.0,
        }
    }
}

/// What the tension of a session comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Milliseconds.
    pub latency: f64,
    /// Share of bad messages, 0 to 1.
    pub error_rate: f64,
    /// Messages that wait.
    pub queue: f64,
    /// MiB.
    pub memory: f64,
}

/// The tension of a session, 0 to 1. What is no finite number counts as 1.
// Spec: GW-83
pub fn tension(phase: Phase, load: &Load) -> f64 {
    let part = |value: f64, whole: f64| if value.is_finite() { value / whole } else { 1.0 };
    let pressed = 0.6 * (part(load.latency, 100.0) + part(load.error_rate, 1.0)).min(1.0);
    let filled = 0.4 * (part(load.queue, 100.0) + part(load.memory, 1024.0).min(1.0)).min(1.0);
    ((pressed + filled) * phase.weight()).min(1.0)
}

/// The name and colour of a tension.
pub fn level(tension: f64) -> (&'static str, &'static str) {
    match tension {
        it if it < 0.3 => ("OPTIMAL", "#2d5aa0"),
        it if it < 0.5 => ("LOW", "#3d7a47"),
        it if it < 0.7 => ("MEDIUM", "#8a5a2d"),
        it if it < 0.9 => ("HIGH", "#a05a2d"),
        _ => ("CRITICAL", "#a02d2d"),
    }
}

/// What is to be expected of a session.
pub fn forecast(tension: f64) -> &'static str {
    if tension > EVICT_ABOVE { "EVICT_IMMINENT" } else { "STABLE" }
}

/// All sessions of a door, as readers are told of them.
pub(crate) struct Lives {
    /// Makes names that lead nowhere.
    salt: [u8; 32],
    lives: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    lives: BTreeMap<u64, Life>,
    /// Ended ones, and when they are forgotten.
    ended: VecDeque<(u64, u64)>,
}

struct Life {
    phase: Phase,
    tension: f64,
}

impl Lives {
    pub(crate) fn new(entropy: &mut dyn Entropy) -> Self {
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        Self { salt, lives: Mutex::default() }
    }

    /// A session whose token was just taken.
    pub(crate) fn begin(&self, number: u64) {
        self.lock().lives.insert(number, Life { phase: Phase::Auth, tension: tension(Phase::Auth, &Load::default()) });
    }

    /// A session goes on, under this load; its new phase when it is another one.
    pub(crate) fn step(&self, number: u64, phase: Phase, load: &Load, mono_ms: u64) -> Option<Phase> {
        let mut table = self.lock();
        let life = table.lives.get_mut(&number)?;
        let moves = life.phase != phase && life.phase.leads_to(phase);
        if moves {
            life.phase = phase;
        }
        life.tension = tension(life.phase, load);
        if moves && phase == Phase::Evict {
            table.ended.push_back((mono_ms + KEPT_MS, number));
            while table.ended.front().is_some_and(|(until, _)| *until <= mono_ms) || table.ended.len() > ENDED_MAX {
                let gone = table.ended.pop_front();
                gone.map(|(_, number)| table.lives.remove(&number));
            }
        }
        moves.then_some(phase)
    }

    /// A name for a session: it says that two lines are of one session, and is no handle to it.
    pub(crate) fn pseudonym(&self, number: u64) -> String {
        data_encoding::HEXLOWER.encode(&sha256_parts(&[&self.salt, &number.to_be_bytes()])[..16])
    }

    /// E17.
    // Spec: GW-83
    pub(crate) fn export(&self, mono_ms: u64, wall_ms: u64) -> String {
        let mut table = self.lock();
        while table.ended.front().is_some_and(|(until, _)| *until <= mono_ms) {
            let gone = table.ended.pop_front();
            gone.map(|(_, number)| table.lives.remove(&number));
        }
        let row = |(number, life): (&u64, &Life)| {
            let mut object = JsObject::new();
            object.set("sessionID", Js::text(self.pseudonym(*number)));
            object.set("phase", Js::text(life.phase.name()));
            object.set("tension", Js::Number(life.tension));
            Js::Object(object)
        };
        let rows: Vec<Js> = table.lives.iter().map(row).collect();
        let mut object = JsObject::new();
        let count = rows.len();
        object.set("data", Js::Array(rows));
        object.set("count", Js::Number(count as f64));
        object.set("timestamp", Js::Number(wall_ms as f64));
        write(&Js::Object(object)).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use sealtide_crypto::SeededEntropy;

    use super::*;

    const ALL: [Phase; 5] = [Phase::Init, Phase::Auth, Phase::Active, Phase::Renew, Phase::Evict];

    // Proves: GW-83
    #[test]
    fn lifecycle_phases() {
        let steps: Vec<(Phase, Phase)> = ALL
            .iter()
            .flat_map(|from| ALL.iter().map(|to| (*from, *to)))
            .filter(|(from, to)| from.leads_to(*to))
            .collect();
        let wanted = [
            (Phase::Init, Phase::Auth),
            (Phase::Init, Phase::Evict),
            (Phase::Auth, Phase::Active),
            (Phase::Auth, Phase::Evict),
            (Phase::Active, Phase::Renew),
            (Phase::Active, Phase::Evict),
            (Phase::Renew, Phase::Active),
            (Phase::Renew, Phase::Evict),
        ];
        assert_eq!(steps, wanted);
    }

    // Proves: GW-83
    #[test]
    fn lifecycle_tension_and_levels() {
        let load = |latency, error_rate, queue, memory| Load { latency, error_rate, queue, memory };
        let close = |left: f64, right: f64| (left - right).abs() < 1e-9;
        for (phase, given, wanted) in [
            (Phase::Active, load(0.0, 0.0, 0.0, 0.0), 0.0),
            (Phase::Active, load(50.0, 0.0, 0.0, 0.0), 0.3),
            (Phase::Active, load(50.0, 0.25, 10.0, 102.4), 0.53),
            (Phase::Active, load(1e9, 1.0, 1e9, 1e9), 1.0),
            (Phase::Active, load(0.0, 0.0, 0.0, 1e9), 0.4),
            (Phase::Auth, load(50.0, 0.0, 0.0, 0.0), 0.45),
            (Phase::Renew, load(50.0, 0.0, 0.0, 0.0), 0.6),
            (Phase::Renew, load(100.0, 0.0, 0.0, 0.0), 1.0),
            (Phase::Active, load(f64::NAN, 0.0, 0.0, 0.0), 0.6),
            (Phase::Active, load(0.0, 0.0, f64::INFINITY, f64::NAN), 0.4),
        ] {
            assert!(close(tension(phase, &given), wanted), "{phase:?} {given:?} {}", tension(phase, &given));
        }
        for (at, name, colour) in [
            (0.0, "OPTIMAL", "#2d5aa0"),
            (0.3, "LOW", "#3d7a47"),
            (0.5, "MEDIUM", "#8a5a2d"),
            (0.7, "HIGH", "#a05a2d"),
            (0.9, "CRITICAL", "#a02d2d"),
        ] {
            assert_eq!(level(at), (name, colour));
            assert_ne!(level(at - 1e-9).0, if at == 0.0 { "" } else { name });
        }
        assert_eq!((forecast(0.7), forecast(0.71)), ("STABLE", "EVICT_IMMINENT"));
    }

    // Proves: GW-83
    #[test]
    fn lifecycle_export_names_no_session() {
        let lives = Lives::new(&mut SeededEntropy::new(1));
        lives.begin(7);
        assert_eq!(lives.step(7, Phase::Active, &Load::default(), 10), Some(Phase::Active));
        assert_eq!(lives.step(7, Phase::Active, &Load::default(), 11), None);
        assert_eq!(lives.step(8, Phase::Active, &Load::default(), 11), None, "nobody knows it");
        let told = lives.export(12, 99);
        assert!(
            told.contains(r#""phase":"ACTIVE","tension":0"#) && told.ends_with(r#""count":1,"timestamp":99}"#),
            "{told}"
        );
        let other = Lives::new(&mut SeededEntropy::new(2));
        assert_ne!(lives.pseudonym(7), other.pseudonym(7), "another start, another name");
        assert_eq!(lives.step(7, Phase::Evict, &Load::default(), 20), Some(Phase::Evict));
        assert!(lives.export(20 + KEPT_MS - 1, 0).contains("EVICT"), "kept for an hour");
        assert!(lives.export(20 + KEPT_MS, 0).contains(r#""count":0"#));
        for number in 0..20_000 {
            lives.begin(number);
            lives.step(number, Phase::Evict, &Load::default(), 30);
        }
        assert!(lives.lock().lives.len() <= ENDED_MAX + 1, "bounded");
    }
}
