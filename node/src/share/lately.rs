//! What a folder lost and got lately: what removes most of it in many small steps is held as if it came at once, and a file that comes and
//! goes counts for nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How long what went, or came, is remembered, in ms.
const LATELY_MS: u64 = 10 * 60 * 1000;
/// What goes within so many ms is one row.
const ROW_MS: u64 = 1000;
/// Files that came and are remembered, at most.
const CAME_MAX: usize = 10_000;

/// What check-outs did to a folder within the last ten minutes, without what a person agreed to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lately {
    /// (When, in ms; how many files went), oldest first.
    rows: Vec<(u64, usize)>,
    /// Whether a check-out is held because of them: until somebody decides, they do not get old.
    pub(crate) held: bool,
    /// Files that came, and when, in ms. Forgotten over a restart: then they count as if they had been there.
    #[serde(skip)]
    came: BTreeMap<String, u64>,
}

impl Lately {
    /// Reads what [`Lately::text`] wrote; what cannot be read is nothing.
    pub(crate) fn read(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// As JSON; none when nothing went.
    pub(crate) fn text(&self) -> Option<String> {
        (self.gone() > 0).then(|| serde_json::json!(self).to_string())
    }

    /// Forgets what is old by now.
    pub(crate) fn age(&mut self, now_ms: u64) {
        // A clock that was set back would keep a row for as long as it was ahead.
        let is_new = |at: u64| at <= now_ms && at.saturating_add(LATELY_MS) > now_ms;
        self.came.retain(|_, at| is_new(*at));
        if !self.held {
            self.rows.retain(|(at, _)| is_new(*at));
        }
    }

    /// How many files went.
    pub(crate) fn gone(&self) -> usize {
        self.rows.iter().map(|(_, gone)| *gone).sum()
    }

    /// Whether a file came, so that it counts for nothing when it goes.
    pub(crate) fn came(&self, path: &str) -> bool {
        self.came.contains_key(path)
    }

    /// How many files came, and are still there.
    pub(crate) fn newcomers(&self) -> usize {
        self.came.len()
    }

    /// Notes that a check-out brought these files to a folder of `before`. What brings most of a folder are no files that come and go:
    /// they are what may be lost.
    pub(crate) fn note_came(&mut self, now_ms: u64, before: usize, paths: Vec<String>) {
        if paths.len() <= before.saturating_mul(3) && self.came.len() + paths.len() <= CAME_MAX {
            self.came.extend(paths.into_iter().map(|path| (path, now_ms)));
        }
    }

    /// Notes that a check-out removed these.
    pub(crate) fn note_gone(&mut self, now_ms: u64, paths: &[String]) {
        let gone = paths.iter().filter(|path| self.came.remove(*path).is_none()).count();
        match self.rows.last_mut() {
            _ if gone == 0 => {}
            Some((at, count)) if now_ms < at.saturating_add(ROW_MS) => *count += gone,
            _ => self.rows.push((now_ms, gone)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| n.to_string()).collect()
    }

    fn gone_at(lately: &Lately, now_ms: u64) -> usize {
        let mut lately = lately.clone();
        lately.age(now_ms);
        lately.gone()
    }

    #[test]
    fn what_goes_counts_for_ten_minutes() {
        let mut lately = Lately::default();
        lately.note_gone(0, &names(3));
        lately.note_gone(500, &names(2));
        lately.note_gone(5_000, &names(4));
        assert_eq!((lately.gone(), lately.rows.len()), (9, 2));
        assert_eq!(Lately::read(lately.text().as_deref()), lately);
        assert_eq!([599_999, 600_000, 605_000].map(|now| gone_at(&lately, now)), [9, 4, 0]);
        assert_eq!(gone_at(&lately, 4_000), 5, "the clock was set back");
        assert_eq!(Lately::read(Some("[1,2]")), Lately::default());
        lately.held = true;
        let held = Lately::read(lately.text().as_deref());
        assert_eq!(gone_at(&held, 1 << 40), 9, "somebody is asked about it");
    }

    #[test]
    fn what_comes_and_goes_counts_for_nothing() {
        let mut lately = Lately::default();
        for n in 0..1000 {
            lately.age(n * 2_000);
            lately.note_came(n * 2_000, 50, names(40));
            lately.note_gone(n * 2_000 + 1_000, &names(40));
        }
        assert_eq!(lately.text(), None);
        lately.note_came(0, 50, names(2));
        lately.note_gone(1, &names(5));
        assert_eq!(lately.gone(), 3, "others that went beside it");
        lately.note_came(10, 50, names(1));
        lately.age(LATELY_MS + 20);
        assert!(!lately.came("0"), "it stands for longer now");
    }

    #[test]
    fn what_brings_most_of_a_folder_is_what_may_be_lost() {
        let mut lately = Lately::default();
        lately.note_came(0, 10, names(6000));
        lately.note_gone(20_000, &names(2000));
        assert_eq!(lately.gone(), 2000);
    }
}
