//! Three-way merge of texts by longest common subsequence. Spec: ibgib §16.2, merge §5.

use std::collections::BTreeMap;

/// Cells of the table of lines, and of all tables of words between lines, at most.
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
/// Time and memory are bounded: tables of at most 4 million cells.
// Spec: SY-60
pub fn merge_text(base: &str, first: &str, second: &str) -> MergedText {
    merge_placed(Places::Settled, base, first, second)
}

/// What is matched first, and where insertions and deletions stand that could as well stand a little further up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// Lines, then words; each change at one place, however it was met.
    Settled,
    /// Words; each change where the walk meets it.
    AsMet,
}

/// As [`merge_text`], for either rule of places.
pub(super) fn merge_placed(places: Places, base: &str, first: &str, second: &str) -> MergedText {
    let merged = match places {
        Places::Settled => align(base, first).zip(align(base, second)).map(|found| {
            let [base, first, second] = [base, first, second].map(words);
            merge_matched(&base, (&first, &found.0), (&second, &found.1))
        }),
        Places::AsMet => {
            let split = |split: fn(&str) -> Vec<&str>| try_merge_as_met(&split(base), &split(first), &split(second));
            split(words).or_else(|| split(lines))
        }
    };
    merged.unwrap_or_else(|| MergedText { text: first.to_owned(), conflicts: 1 })
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
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

/// For each word of `base` the place of its match in `side`: lines are matched first, then the words between lines that match. So what
/// is put in as a line is met as a line, whatever words it has in common with others. `None` when the table of lines would be too
/// large; words between which a table would be are not matched.
fn align(base: &str, side: &str) -> Option<Vec<Option<usize>>> {
    let (base, side) = (lines(base), lines(side));
    let mut of_lines = matches(&base, &side, &mut { CELLS_MAX })?;
    settle(&base, &side, &mut of_lines);
    let (mut found, mut cells) = (Vec::new(), CELLS_MAX);
    // Where the gap begins, in lines of both, and the words of `side` before it.
    let (mut from, mut from_side, mut behind) = (0, 0, 0);
    for at in 0..=base.len() {
        let Some(place) = place_of(&of_lines, at, side.len()) else { continue };
        let gap = [&base[from..at], &side[from_side..place]];
        let [in_base, in_side] = gap.map(|lines| lines.iter().flat_map(|line| words(line)).collect::<Vec<_>>());
        let mut between = matches(&in_base, &in_side, &mut cells).unwrap_or_else(|| vec![None; in_base.len()]);
        settle(&in_base, &in_side, &mut between);
        found.extend(between.into_iter().map(|place| place.map(|place| place + behind)));
        behind += in_side.len();
        if let Some(line) = base.get(at) {
            let count = words(line).len();
            found.extend((behind..behind + count).map(Some));
            behind += count;
        }
        (from, from_side) = (at + 1, place + 1);
    }
    Some(found)
}

/// `None` when a table would be too large.
fn try_merge_as_met(base: &[&str], first: &[&str], second: &[&str]) -> Option<MergedText> {
    let found = [first, second].map(|side| matches(base, side, &mut { CELLS_MAX }));
    let [Some(in_first), Some(in_second)] = found else { return None };
    Some(merge_matched(base, (first, &in_first), (second, &in_second)))
}

/// A side, and for each token of the base the place of its match in it.
type Matched<'a> = (&'a [&'a str], &'a [Option<usize>]);

fn merge_matched(base: &[&str], (first, in_first): Matched<'_>, (second, in_second): Matched<'_>) -> MergedText {
    let mut merged = MergedText { text: String::new(), conflicts: 0 };
    let (mut at_base, mut at_first, mut at_second) = (0, 0, 0);
    for (at, token) in base.iter().enumerate() {
        let (Some(stable_first), Some(stable_second)) = (in_first[at], in_second[at]) else { continue };
        merged.region(&base[at_base..at], &first[at_first..stable_first], &second[at_second..stable_second]);
        merged.text.push_str(token);
        (at_base, at_first, at_second) = (at + 1, stable_first + 1, stable_second + 1);
    }
    merged.region(&base[at_base..], &first[at_first..], &second[at_second..]);
    merged
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

/// For each token of `base` the place of its match in `side`; `None` when the table would have more than `cells`, which it takes.
fn matches(base: &[&str], side: &[&str], cells: &mut usize) -> Option<Vec<Option<usize>>> {
    let prefix = base.iter().zip(side).take_while(|(left, right)| left == right).count();
    let (base_rest, side_rest) = (&base[prefix..], &side[prefix..]);
    let suffix = base_rest.iter().rev().zip(side_rest.iter().rev()).take_while(|(left, right)| left == right).count();
    let (base_middle, side_middle) = (&base_rest[..base_rest.len() - suffix], &side_rest[..side_rest.len() - suffix]);
    *cells = cells.checked_sub(base_middle.len().saturating_mul(side_middle.len()))?;
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
        // One step up, past the kept token before the block: gives whether another block is met by it.
        let step = |shift: usize| {
            let (before, begin) = (at.checked_sub(shift + 1)?, begin.checked_sub(shift + 1)?);
            let above = before.checked_sub(1).map_or(Some(0), |above| found[above].map(|above| above + 1))?;
            (found[before] == Some(begin) && base[before] == side[end - 1 - shift]).then_some(above != begin)
        };
        let (mut shift, mut meets) = (0, false);
        while !ends_line(shift) && !meets && *steps > 0 {
            let Some(met) = step(shift) else { break };
            (shift, meets) = (shift + 1, met);
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

        /// A line as of a list: some words stand in many of them, the last one in few.
        fn line(&mut self) -> String {
            let length = self.below(4);
            let word = |dice: &mut Self| match dice.below(190) {
                0..20 => "-".to_owned(),
                20..40 => "the".to_owned(),
                number => format!("w{number}"),
            };
            let words: Vec<String> = (0..length).map(|_| word(self)).collect();
            format!("{} w{}\n", words.join(" "), self.below(100_000))
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
            let mut found = matches(&base, &side, &mut { CELLS_MAX }).unwrap();
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
        assert!(matches(&words(&base), &words(&first), &mut { CELLS_MAX }).is_none());
        check(&base, &first, &base.replace("tail", "end"), &first.replace("tail", "end"), 0);

        let (base, first, second) = (text(2100, "x"), text(2100, "y"), text(2100, "z"));
        check(&base, &first, &second, &first, 1);
    }
}
