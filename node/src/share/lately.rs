//! How many files a folder lost lately: what removes most of it in many small steps is held as if it came at once.

use serde::{Deserialize, Serialize};

/// How long what went counts, in ms.
const LATELY_MS: u64 = 10 * 60 * 1000;
/// What happens within so many ms is one row.
const ROW_MS: u64 = 1000;

/// What check-outs did to the number of files within the last ten minutes, without what a person agreed to. A file that is renamed, or
/// that comes and goes in between (as editors make them), counts for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lately {
    /// (When, in ms; how many files less).
    rows: Vec<(u64, i64)>,
    /// Whether a check-out is held because of them: until somebody decides, they do not get old.
    pub(crate) held: bool,
}

impl Lately {
    /// Reads what [`Lately::text`] wrote; what cannot be read is nothing.
    pub(crate) fn read(text: Option<&str>, now_ms: u64) -> Self {
        let mut lately: Self = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        // A clock that was set back would keep a row for as long as it was ahead.
        let counts = |at: u64| at <= now_ms && at.saturating_add(LATELY_MS) > now_ms;
        if !lately.held {
            lately.rows.retain(|(at, _)| counts(*at));
        }
        lately
    }

    /// As JSON; none when nothing is lost.
    pub(crate) fn text(&self) -> Option<String> {
        (self.lost() > 0).then(|| serde_json::json!(self).to_string())
    }

    /// How many files are gone that nothing came for.
    pub(crate) fn lost(&self) -> usize {
        let lost = self.rows.iter().fold(0i64, |lost, (_, gone)| lost.saturating_add(*gone).max(0));
        usize::try_from(lost).unwrap_or(0)
    }

    /// Notes that `gone` files less are there (negative: more).
    pub(crate) fn note(&mut self, now_ms: u64, gone: i64) {
        // What comes first is never taken against what goes later.
        if self.lost() == 0 && gone <= 0 {
            return self.rows.clear();
        }
        match self.rows.last_mut() {
            Some((at, count)) if now_ms < at.saturating_add(ROW_MS) => *count = count.saturating_add(gone),
            _ => self.rows.push((now_ms, gone)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_counts_for_ten_minutes() {
        let mut lately = Lately::default();
        lately.note(0, 3);
        lately.note(500, 2);
        lately.note(5_000, 4);
        assert_eq!((lately.lost(), lately.rows.len()), (9, 2));
        let text = lately.text();
        assert_eq!(Lately::read(text.as_deref(), 599_999), lately);
        assert_eq!(Lately::read(text.as_deref(), 600_000).lost(), 4);
        assert_eq!(Lately::read(text.as_deref(), 605_000), Lately::default());
        assert_eq!(Lately::read(text.as_deref(), 4_000).lost(), 5, "the clock was set back");
        assert_eq!(Lately::read(Some("[1,2]"), 0), Lately::default());
        lately.held = true;
        assert_eq!(Lately::read(lately.text().as_deref(), 1 << 40).lost(), 9, "somebody is asked about it");
    }

    #[test]
    fn what_comes_for_it_is_taken_off() {
        let mut lately = Lately::default();
        lately.note(0, -50);
        assert_eq!(lately.text(), None);
        // Lock files of an editor, for hours.
        for n in 0..1000 {
            lately.note(n * 2_000, -1);
            lately.note(n * 2_000 + 1_000, 1);
            lately.note(n * 2_000 + 1_100, -1);
        }
        assert!(lately.lost() <= 1, "{}", lately.lost());
        lately.note(3_000_000, 10);
        lately.note(3_002_000, -4);
        assert_eq!(lately.lost(), 6);
        lately.note(3_004_000, -60);
        lately.note(3_006_000, 2);
        assert_eq!(lately.lost(), 2);
    }
}
