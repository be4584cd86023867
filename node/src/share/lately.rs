//! How many files a folder lost lately: what removes most of it in many small steps is held as if it came at once.

use serde::{Deserialize, Serialize};

/// How long what went, or came, counts, in ms.
const LATELY_MS: u64 = 10 * 60 * 1000;
/// What happens within so many ms is one row.
const ROW_MS: u64 = 1000;

/// What check-outs did to the number of files within the last ten minutes, without what a person agreed to. A file that is renamed, or
/// that comes and goes in between (as editors and compilers make them), counts for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lately {
    /// (When, in ms; how many files less), oldest first.
    rows: Vec<(u64, i64)>,
    /// Whether a check-out is held because of them: until somebody decides, they do not get old.
    pub(crate) held: bool,
}

impl Lately {
    /// Reads what [`Lately::text`] wrote; what cannot be read is nothing.
    pub(crate) fn read(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// As JSON; none when nothing is lost.
    pub(crate) fn text(&self) -> Option<String> {
        (self.lost() > 0).then(|| serde_json::json!(self).to_string())
    }

    /// Forgets what is old by now.
    pub(crate) fn age(&mut self, now_ms: u64) {
        // A clock that was set back would keep a row for as long as it was ahead.
        if !self.held {
            self.rows.retain(|(at, _)| *at <= now_ms && at.saturating_add(LATELY_MS) > now_ms);
        }
    }

    /// How many files are gone that nothing came for.
    pub(crate) fn lost(&self) -> usize {
        let gone = self.rows.iter().fold(0i64, |all, (_, gone)| all.saturating_add(*gone));
        usize::try_from(gone).unwrap_or(0)
    }

    /// Notes how many files were there before and after a check-out.
    pub(crate) fn note(&mut self, now_ms: u64, before: usize, after: usize) {
        // What brings most of a folder are no files that come and go: they are what may be lost.
        if after > before.saturating_mul(4) || after == before {
            return;
        }
        let gone = i64::try_from(before).unwrap_or(i64::MAX) - i64::try_from(after).unwrap_or(i64::MAX);
        match self.rows.last_mut() {
            Some((at, count)) if now_ms < at.saturating_add(ROW_MS) => *count = count.saturating_add(gone),
            _ => self.rows.push((now_ms, gone)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lately: &Lately, now_ms: u64) -> usize {
        let mut lately = lately.clone();
        lately.age(now_ms);
        lately.lost()
    }

    #[test]
    fn what_goes_counts_for_ten_minutes() {
        let mut lately = Lately::default();
        lately.note(0, 100, 97);
        lately.note(500, 97, 95);
        lately.note(5_000, 95, 91);
        assert_eq!((lately.lost(), lately.rows.len()), (9, 2));
        assert_eq!(Lately::read(lately.text().as_deref()), lately);
        assert_eq!([599_999, 600_000, 605_000].map(|now| at(&lately, now)), [9, 4, 0]);
        assert_eq!(at(&lately, 4_000), 5, "the clock was set back");
        assert_eq!(Lately::read(Some("[1,2]")), Lately::default());
        lately.held = true;
        let held = Lately::read(lately.text().as_deref());
        assert_eq!(at(&held, 1 << 40), 9, "somebody is asked about it");
    }

    #[test]
    fn what_comes_and_goes_counts_for_nothing() {
        let mut lately = Lately::default();
        // Lock files of an editor, for hours.
        for n in 0..1000 {
            lately.note(n * 2_000, 50, 49);
            lately.note(n * 2_000 + 1_000, 49, 50);
        }
        assert_eq!(lately.text(), None);
        // Objects that are packed a little later.
        lately.note(3_000_000, 200, 340);
        lately.note(3_030_000, 340, 220);
        assert_eq!(lately.text(), None);
        lately.note(3_040_000, 220, 190);
        assert_eq!(lately.lost(), 10);
    }

    #[test]
    fn what_brings_most_of_a_folder_is_what_may_be_lost() {
        let mut lately = Lately::default();
        lately.note(0, 0, 6000);
        lately.note(20_000, 6000, 4000);
        assert_eq!(lately.lost(), 2000);
    }
}
