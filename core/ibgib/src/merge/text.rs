//! Three-way merge of texts by longest common subsequence. Spec: ibgib §16.2, merge §5.

use std::collections::BTreeMap;

/// Cells of one table, at most: beyond it tokens are whole lines, and beyond it again nothing is merged.
const CELLS_MAX: usize = 4_000_000;

/// A merged text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedText {
    /// The text.
    pub text: String,
    /// Places where both sides said something else; both are in the text, the first one first.
    pub conflicts: u64,
}

/// Merges what `first` (the winner) and `second` made of `base`. Does not depend on anything but the three texts.
/// Time and memory are bounded: two tables of at most 4 million cells.
// Spec: SY-60
pub fn merge_text(base: &str, first: &str, second: &str) -> MergedText {
    merge_placed(Places::Settled, base, first, second)
}

/// Where insertions and deletions stand that could as well stand a little further up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// Each at one place, however it was met.
    Settled,
    /// Where the walk meets them.
    AsMet,
}

/// As [`merge_text`], for either rule of places.
pub(super) fn merge_placed(places: Places, base: &str, first: &str, second: &str) -> MergedText {
    let split = |split: fn(&str) -> Vec<&str>| try_merge(places, &split(base), &split(first), &split(second));
    split(words)
        .or_else(|| split(|text| text.split_inclusive('\n').collect()))
        .unwrap_or_else(|| MergedText { text: first.to_owned(), conflicts: 1 })
}

/// Each line feed alone, runs of spaces and tabs, runs of anything else.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(class) = rest.chars().next().map(class) {
        let end = match class {
            Class::LineFeed => 1,
            _ => rest.find(|other| self::class(other) != class).unwrap_or(rest.len()),
        };
        let (word, behind) = rest.split_at(end);
        words.push(word);
        rest = behind;
    }
    words
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    LineFeed,
    Space,
    Other,
}

fn class(character: char) -> Class {
    match character {
        '\n' => Class::LineFeed,
        ' ' | '\t' => Class::Space,
        _ => Class::Other,
    }
}

/// `None` when a table would be too large.
fn try_merge(places: Places, base: &[&str], first: &[&str], second: &[&str]) -> Option<MergedText> {
    let (mut in_first, mut in_second) = (matches(base, first)?, matches(base, second)?);
    if places == Places::Settled {
        settle(base, first, &mut in_first);
        settle(base, second, &mut in_second);
    }
    let mut merged = MergedText { text: String::new(), conflicts: 0 };
    let (mut at_base, mut at_first, mut at_second) = (0, 0, 0);
    for (at, token) in base.iter().enumerate() {
        let (Some(stable_first), Some(stable_second)) = (in_first[at], in_second[at]) else { continue };
        merged.region(&base[at_base..at], &first[at_first..stable_first], &second[at_second..stable_second]);
        merged.text.push_str(token);
        (at_base, at_first, at_second) = (at + 1, stable_first + 1, stable_second + 1);
    }
    merged.region(&base[at_base..], &first[at_first..], &second[at_second..]);
    Some(merged)
}

impl MergedText {
    /// Adds what became of the tokens between two that both sides kept.
    fn region(&mut self, base: &[&str], first: &[&str], second: &[&str]) {
        let mut add = |tokens: &[&str]| tokens.iter().for_each(|token| self.text.push_str(token));
        if first == base {
            add(second);
        } else if second == base || first == second {
            add(first);
        } else {
            add(first);
            let apart = |tokens: &[&str], side: fn(&str) -> Option<char>, place: Option<usize>| {
                place.and_then(|place| side(tokens[place])).is_none_or(|edge| class(edge) != Class::Other)
            };
            let ends = apart(first, |token| token.chars().next_back(), first.len().checked_sub(1));
            let begins = apart(second, |token| token.chars().next(), (!second.is_empty()).then_some(0));
            if !ends && !begins {
                add(&[" "]);
            }
            add(second);
            self.conflicts += 1;
        }
    }
}

/// For each token of `base` the place of its match in `side`; `None` when the table would be too large.
fn matches(base: &[&str], side: &[&str]) -> Option<Vec<Option<usize>>> {
    let prefix = base.iter().zip(side).take_while(|(left, right)| left == right).count();
    let (base_rest, side_rest) = (&base[prefix..], &side[prefix..]);
    let suffix = base_rest.iter().rev().zip(side_rest.iter().rev()).take_while(|(left, right)| left == right).count();
    let (base_middle, side_middle) = (&base_rest[..base_rest.len() - suffix], &side_rest[..side_rest.len() - suffix]);
    if base_middle.len().saturating_mul(side_middle.len()) > CELLS_MAX {
        return None;
    }
    let mut found: Vec<Option<usize>> = (0..prefix).map(Some).collect();
    found.extend(middle(base_middle, side_middle).into_iter().map(|place| place.map(|place| place + prefix)));
    found.extend((side.len() - suffix..side.len()).map(Some));
    Some(found)
}

/// Gives every insertion and every deletion one place, whatever way it was found: where it could as well stand a little further down or
/// up, since it begins like what follows it or ends like what stands before, it goes down as far as it can, then up to where it ends with a
/// line, if it can. Otherwise a line that both sides inserted, and whose words stand around it too, would be found in two places, and be in
/// the result twice.
fn settle(base: &[&str], side: &[&str], found: &mut Vec<Option<usize>>) {
    let mut steps = CELLS_MAX;
    settle_insertions(base, side, found, &mut steps);
    let mut back = turned(found, side.len());
    settle_insertions(side, base, &mut back, &mut steps);
    *found = turned(&back, base.len());
}

/// For each of `length` places the one that leads to it.
fn turned(places: &[Option<usize>], length: usize) -> Vec<Option<usize>> {
    let mut turned = vec![None; length];
    for (from, to) in places.iter().enumerate() {
        if let Some(to) = to {
            turned[*to] = Some(from);
        }
    }
    turned
}

/// As [`settle`], for what only `side` has; at most so many `steps`.
fn settle_insertions(base: &[&str], side: &[&str], found: &mut [Option<usize>], steps: &mut usize) {
    for place in (0..=base.len()).rev() {
        // The block stands in `side` from `begin` to `end`, before the base token `at`.
        let mut at = place;
        let Some(mut begin) = at.checked_sub(1).map_or(Some(0), |before| found[before].map(|before| before + 1)) else {
            continue;
        };
        let Some(mut end) = place_of(found, at, side.len()) else { continue };
        if begin == end {
            continue;
        }
        while at < base.len() && side[begin] == base[at] && *steps > 0 {
            let Some(next) = place_of(found, at + 1, side.len()) else { break };
            found[at] = Some(begin);
            (at, begin, end) = (at + 1, begin + 1, next);
            *steps -= 1;
        }
        let ends_line = |shift: usize| side[end - 1 - shift].ends_with('\n');
        let can_shift = |shift: usize| {
            let before = at.checked_sub(shift + 1)?;
            let above = before.checked_sub(1).map_or(Some(0), |above| found[above].map(|above| above + 1));
            (found[before] == begin.checked_sub(shift + 1)
                && above == begin.checked_sub(shift + 1)
                && base[before] == side[end - 1 - shift])
                .then_some(())
        };
        let mut shift = 0;
        while !ends_line(shift) && *steps > 0 && can_shift(shift).is_some() {
            shift += 1;
            *steps -= 1;
        }
        if ends_line(shift) {
            for up in 1..=shift {
                found[at - up] = Some(end - up);
            }
        }
    }
}

/// Where the base token `at` stands in a side; its end for the end of the base.
fn place_of(found: &[Option<usize>], at: usize, end: usize) -> Option<usize> {
    found.get(at).copied().unwrap_or(Some(end))
}

/// A longest common subsequence of two short lists: the one that a walk from the start meets.
fn middle(base: &[&str], side: &[&str]) -> Vec<Option<usize>> {
    let mut found = vec![None; base.len()];
    if base.is_empty() || side.is_empty() {
        return found;
    }
    // Small numbers instead of texts, so that a cell costs one comparison.
    let mut numbers = BTreeMap::new();
    let mut number = |token| {
        let next = numbers.len();
        *numbers.entry(token).or_insert(next)
    };
    let base: Vec<usize> = base.iter().map(|token| number(*token)).collect();
    let side: Vec<usize> = side.iter().map(|token| number(*token)).collect();
    // The common length of what is behind (i, j). The shorter list has at most 2 000 tokens, so 16 bits hold it.
    let width = side.len() + 1;
    let mut table = vec![0u16; (base.len() + 1) * width];
    for i in (0..base.len()).rev() {
        for j in (0..side.len()).rev() {
            table[i * width + j] = if base[i] == side[j] {
                table[(i + 1) * width + j + 1] + 1
            } else {
                table[(i + 1) * width + j].max(table[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < base.len() && j < side.len() {
        if base[i] == side[j] {
            found[i] = Some(j);
            (i, j) = (i + 1, j + 1);
        } else if table[(i + 1) * width + j] >= table[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, first: &str, second: &str, text: &str, conflicts: u64) {
        let merged = merge_text(base, first, second);
        assert!(
            merged == MergedText { text: text.to_owned(), conflicts },
            "{base:.80?}: {} {:.80?}",
            merged.conflicts,
            merged.text
        );
    }

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % end
        }

        /// Texts of few words, so that nearly every change could stand in several places.
        fn few_words(&mut self) -> Vec<&'static str> {
            let length = self.below(12);
            (0..length).map(|_| ["a", "b", " ", "\n"][self.below(4)]).collect()
        }

        /// A line as of a list: some words stand in many of them.
        fn line(&mut self) -> String {
            let length = 1 + self.below(4);
            let word = |dice: &mut Self| match dice.below(190) {
                0..20 => "-".to_owned(),
                20..40 => "the".to_owned(),
                number => format!("w{number}"),
            };
            let words: Vec<String> = (0..length).map(|_| word(self)).collect();
            words.join(" ") + "\n"
        }
    }

    /// Of a text each third line may be changed, by one side, the other, or both alike: replaced, put in before it, or taken out.
    // Proves: SY-60 (edits that two lines stand between are all in the result, each once)
    #[test]
    fn edits_apart_from_each_other_are_all_there_once() {
        let mut dice = Dice(7);
        for _ in 0..5_000 {
            let (lines, begin) = (3 + dice.below(12), dice.below(3));
            let [mut base, mut first, mut second, mut both] = [const { String::new() }; 4];
            for at in begin..begin + lines {
                let (line, fresh) = (dice.line(), dice.line());
                let changed = [fresh.clone(), fresh + &line, String::new()][dice.below(3)].clone();
                let who = if at % 3 == 0 { dice.below(6) } else { 0 };
                base += &line;
                first += if who == 1 || who == 3 { &changed } else { &line };
                second += if who == 2 || who == 3 { &changed } else { &line };
                both += if (1..=3).contains(&who) { &changed } else { &line };
            }
            check(&base, &first, &second, &both, 0);
        }
    }

    #[test]
    fn settled_matches_are_as_many_and_stay_where_they_are() {
        let mut dice = Dice(1);
        for _ in 0..20_000 {
            let (base, side) = (dice.few_words(), dice.few_words());
            let mut found = matches(&base, &side).unwrap();
            settle(&base, &side, &mut found);
            let places: Vec<usize> = found.iter().flatten().copied().collect();
            assert!(places.is_sorted_by(|left, right| left < right), "{base:?} {side:?} {found:?}");
            let same = |(at, place): (usize, &Option<usize>)| place.is_none_or(|place| base[at] == side[place]);
            assert!(found.iter().enumerate().all(same), "{base:?} {side:?} {found:?}");
            let longest = middle(&base, &side).iter().flatten().count();
            assert_eq!(places.len(), longest, "{base:?} {side:?} {found:?}");
        }
    }

    #[test]
    fn tokens() {
        assert_eq!(words("a \t b\n\n\r\nä."), ["a", " \t ", "b", "\n", "\n", "\r", "\n", "ä."]);
        assert!(words("").is_empty());
    }

    #[test]
    fn a_space_stands_between_two_words_only() {
        check("x", "x a", "x b", "x a b", 1);
        check("", "a", "b", "a b", 1);
        check("", "a\n", "b\n", "a\nb\n", 1);
        check("", "a", "\tb", "a\tb", 1);
        check("a", "", "b", "b", 1);
    }

    // Proves: SY-60 (equal insertions are taken once, wherever they were found)
    #[test]
    fn a_line_that_both_sides_inserted_stands_once() {
        let base = "top line\nnew alpha\nnew beta\nnew gamma\nend\n";
        let with = base.replace("new gamma", "new same\nnew gamma");
        let edited = |text: &str| text.replace("top line", "top line edited");
        for (first, second) in [(edited(&with), with.clone()), (with.clone(), edited(&with))] {
            check(base, &first, &second, &edited(&with), 0);
        }
        let edited = |text: &str| text.replace("end", "the end");
        check(base, &edited(&with), &with, &edited(&with), 0);
        // The same for a line that both took out.
        let edited = |text: &str| text.replace("top line", "top line edited");
        check(&with, &edited(base), base, &edited(base), 0);
        // Neither the line before nor the one behind is in the way of an edit.
        check(base, &with, &base.replace("beta", "beta 2"), &with.replace("beta", "beta 2"), 0);
        check(base, &with, &base.replace("gamma", "gamma 2"), &with.replace("gamma", "gamma 2"), 0);
        check("- a\n- b\n", "- a\n- x\n- b\n", "- a\n- y\n- b\n", "- a\n- x\n- y\n- b\n", 1);
        check("a a a", "a a a a", "a a a a", "a a a a", 0);
        // Earlier versions had it twice, and their merges are known by that.
        let edited = |text: &str| text.replace("top line", "top line edited");
        let met = merge_placed(Places::AsMet, base, &edited(&with), &with);
        assert_eq!((met.text.matches("new same").count(), met.conflicts), (2, 0));
    }

    // Proves: SY-60 (a middle that is too large as words is merged by lines, then not at all)
    #[test]
    fn large_texts_are_merged_by_lines_and_too_large_ones_not() {
        let text = |lines: usize, mark: &str| -> String {
            (0..lines).map(|line| format!("{mark}{line} a b c d e f\n")).collect()
        };
        let base = format!("{}middle\ntail\n", text(300, "x"));
        let first = format!("{}middle\ntail\n", text(300, "y"));
        assert!(try_merge(Places::Settled, &words(&base), &words(&first), &words(&base)).is_none());
        check(&base, &first, &base.replace("tail", "end"), &first.replace("tail", "end"), 0);

        let (base, first, second) = (text(2100, "x"), text(2100, "y"), text(2100, "z"));
        check(&base, &first, &second, &first, 1);
    }
}
