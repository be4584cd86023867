//! A map for keys that mostly come in ascending order, as a bulk stream brings them: first what is in timelines, then what is in none.

use std::collections::BTreeMap;

use smallvec::SmallVec;

/// A map whose keys lie one behind the other in a few lists, each as long as they ascend: without a search, and in a good half of the room
/// that a tree takes. Keys that fit behind no list are in a tree beside them.
#[derive(Debug)]
pub(super) struct Ascending<K, V> {
    lists: SmallVec<[List<K, V>; 1]>,
    aside: BTreeMap<K, V>,
}

/// A key whose place among evenly spread ones can be guessed.
pub(super) trait Spread: Ord + Copy {
    /// The front of the key as a number that ascends with it.
    fn spread(&self) -> u64;
}

/// Keys in ascending order, in segments of [`SEGMENT`] rows each but for the last: nothing is moved when the list grows, and the first keys of
/// the segments are few enough for a search that stays in the caches. Never empty.
#[derive(Debug)]
struct List<K, V> {
    segments: Vec<Vec<(K, V)>>,
    /// The first key of each segment.
    firsts: Vec<K>,
    /// Where the last key that was put in would be: the next one is looked for from here on.
    near: usize,
}

/// Rows of a segment.
const SEGMENT: usize = 512;
/// So many lists at most: each look-up asks all of them.
const LISTS_MAX: usize = 4;
/// So many rows beside a guess are looked at first.
const GUESS_STEP: usize = 8;
/// So many rows behind the last place are looked at before all.
const NEAR: usize = 32;

impl<K, V> Default for Ascending<K, V> {
    fn default() -> Self {
        Self { lists: SmallVec::new(), aside: BTreeMap::new() }
    }
}

/// The number of rows in front that are `less`, as [`slice::partition_point`] finds it: looked for around where `key` would be if all keys were
/// spread evenly, which those of hashes are. A search by halves touches a line of memory for each half, and the lists are larger than any cache.
/// Whatever the keys, it takes at most twice as many steps.
fn partition<K: Spread, T>(rows: &[T], key: &K, key_of: impl Fn(&T) -> K, less: impl Fn(&T) -> bool) -> usize {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return 0 };
    let (first, last) = (key_of(first).spread(), key_of(last).spread());
    let part = key.spread().saturating_sub(first) as f64 / last.saturating_sub(first).max(1) as f64;
    let guess = ((part * rows.len() as f64) as usize).min(rows.len() - 1);
    let (mut low, mut high, mut step) = (0, rows.len(), GUESS_STEP);
    if less(&rows[guess]) {
        low = guess + 1;
        while low + step <= high {
            if !less(&rows[low + step - 1]) {
                high = low + step - 1;
                break;
            }
            low += step;
            step *= 2;
        }
    } else {
        high = guess;
        while low + step <= high {
            if less(&rows[high - step]) {
                low = high - step + 1;
                break;
            }
            high -= step;
            step *= 2;
        }
    }
    low + rows[low..high].partition_point(less)
}

impl<K: Spread, V> List<K, V> {
    fn new() -> Self {
        Self { segments: Vec::new(), firsts: Vec::new(), near: 0 }
    }

    fn len(&self) -> usize {
        self.segments.last().map_or(0, |last| (self.segments.len() - 1) * SEGMENT + last.len())
    }

    fn row(&self, at: usize) -> Option<&(K, V)> {
        self.segments.get(at / SEGMENT)?.get(at % SEGMENT)
    }

    fn value_mut(&mut self, at: usize) -> &mut V {
        &mut self.segments[at / SEGMENT][at % SEGMENT].1
    }

    fn last(&self) -> Option<K> {
        self.segments.last()?.last().map(|(last, _)| *last)
    }

    fn is_behind(&self, key: &K) -> bool {
        self.last().is_none_or(|last| last < *key)
    }

    /// Adds a key behind all others; gives its place.
    fn push(&mut self, key: K, value: V) -> usize {
        let at = self.len();
        match self.segments.last_mut().filter(|last| last.len() < SEGMENT) {
            Some(last) => last.push((key, value)),
            None => {
                // The first one grows: most lists are short.
                let mut segment = Vec::with_capacity(if at == 0 { 1 } else { SEGMENT });
                segment.push((key, value));
                self.segments.push(segment);
                self.firsts.push(key);
            }
        }
        at
    }

    /// The first place whose key is not less.
    fn place(&self, key: &K) -> usize {
        if self.is_behind(key) {
            return self.len();
        }
        let less = |(there, _): &(K, V)| there < key;
        let (segment, from) = (self.near / SEGMENT, self.near % SEGMENT);
        let near = self.segments.get(segment).and_then(|rows| rows.get(from..rows.len().min(from + NEAR)));
        if let Some(near @ [first, .., last]) = near
            && less(first)
            && !less(last)
        {
            return self.near + near.partition_point(less);
        }
        let segment = partition(&self.firsts, key, |first| *first, |first| first <= key).saturating_sub(1);
        segment * SEGMENT + partition(&self.segments[segment], key, |(there, _)| *there, less)
    }

    fn find(&self, key: &K) -> Option<usize> {
        let at = self.place(key);
        self.row(at).is_some_and(|(there, _)| there == key).then_some(at)
    }

    /// The rows from a place on.
    fn from(&self, at: usize) -> impl Iterator<Item = &(K, V)> {
        let (segment, from) = (at / SEGMENT, at % SEGMENT);
        let first = self.segments.get(segment).and_then(|rows| rows.get(from..)).unwrap_or_default();
        first.iter().chain(self.segments.iter().skip(segment + 1).flatten())
    }
}

impl<K: Spread, V> Ascending<K, V> {
    pub(super) fn len(&self) -> usize {
        self.lists.iter().map(List::len).sum::<usize>() + self.aside.len()
    }

    /// The list that has the key, and where in it.
    fn find(&self, key: &K) -> Option<(usize, usize)> {
        self.lists.iter().enumerate().find_map(|(list, rows)| Some((list, rows.find(key)?)))
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self.find(key) {
            Some((list, at)) => self.lists[list].row(at).map(|(_, value)| value),
            None => self.aside.get(key),
        }
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self.find(key) {
            Some((list, at)) => Some(self.lists[list].value_mut(at)),
            None => self.aside.get_mut(key),
        }
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, made where there is none; and whether it was made.
    pub(super) fn get_or_make(&mut self, key: K, make: impl FnOnce() -> V) -> (&mut V, bool) {
        let mut found = None;
        for (number, list) in self.lists.iter_mut().enumerate() {
            let at = list.place(&key);
            list.near = at.saturating_sub(1);
            if list.row(at).is_some_and(|(there, _)| *there == key) {
                found = Some((number, at));
                break;
            }
        }
        if let Some((list, at)) = found {
            return (self.lists[list].value_mut(at), false);
        }
        if self.aside.contains_key(&key) {
            return (self.aside.entry(key).or_insert_with(make), false);
        }
        // Behind the list that ends nearest to it.
        let behind = self.lists.iter().enumerate().filter(|(_, list)| list.is_behind(&key));
        let list = behind.max_by_key(|(_, list)| list.last()).map(|(number, _)| number);
        let list = match list {
            Some(list) => list,
            None if self.lists.len() < LISTS_MAX => {
                self.lists.push(List::new());
                self.lists.len() - 1
            }
            None => return (self.aside.entry(key).or_insert_with(make), true),
        };
        let list = &mut self.lists[list];
        let at = list.push(key, make());
        (list.value_mut(at), true)
    }

    /// What has a key from `from` to `to`, in order: a few.
    pub(super) fn range(&self, from: K, to: K) -> SmallVec<[(K, &V); 2]> {
        let listed = self.lists.iter().flat_map(|list| {
            list.from(list.place(&from)).take_while(|(key, _)| *key <= to).map(|(key, value)| (*key, value))
        });
        let aside = self.aside.range(from..=to).map(|(key, value)| (*key, value));
        let mut found: SmallVec<[(K, &V); 2]> = listed.chain(aside).collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        found
    }

    /// All of it, in no order that means something.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.lists.iter().flat_map(|list| list.from(0)).map(|(key, value)| (key, value)).chain(&self.aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealtide_crypto::{Entropy, SeededEntropy};

    impl Spread for u32 {
        fn spread(&self) -> u64 {
            u64::from(*self)
        }
    }

    #[test]
    fn a_place_is_found_wherever_the_keys_lie() {
        for seed in 0..300 {
            let mut random = SeededEntropy::new(seed);
            let mut bytes = [0; 4];
            let mut number = |below: u32| {
                random.fill(&mut bytes);
                u32::from_le_bytes(bytes) % below
            };
            // Evenly spread, in heaps, and all but one far away.
            let spread = [1 << 31, 300, 3][seed as usize % 3];
            let mut keys: Vec<u32> = (0..number(700)).map(|_| number(spread)).collect();
            keys.extend((seed % 2 == 0).then_some(u32::MAX));
            keys.sort_unstable();
            let between: Vec<u32> = (0..50).map(|_| number(spread)).collect();
            for key in keys.iter().chain(&between).chain(&[0, u32::MAX]) {
                let wanted = keys.partition_point(|there| there < key);
                assert_eq!(partition(&keys, key, |there| *there, |there| there < key), wanted, "{key} of {keys:?}");
                let wanted = keys.partition_point(|there| there <= key);
                assert_eq!(partition(&keys, key, |there| *there, |there| there <= key), wanted, "{key} of {keys:?}");
            }
        }
    }

    #[test]
    fn a_stream_of_two_halves_lies_in_two_lists() {
        let mut map = Ascending::default();
        for key in (0..400u32).step_by(2).chain((1..400).step_by(2)) {
            assert!(map.get_or_make(key, || ()).1);
            assert!(map.contains(&key) && !map.get_or_make(key, || ()).1);
        }
        assert_eq!((map.lists.len(), map.aside.len(), map.len()), (2, 0, 400));
    }

    #[test]
    fn it_is_a_map_whatever_the_order_of_its_keys() {
        for seed in 0..200 {
            let mut random = SeededEntropy::new(seed);
            let (mut map, mut model) = (Ascending::default(), BTreeMap::new());
            for step in 0..200u32 {
                let mut byte = [0];
                random.fill(&mut byte);
                // Runs of ascending keys, and others between them.
                let key = if byte[0] < 160 { step * 4 + u32::from(byte[0] % 4) } else { u32::from(byte[0]) };
                let is_new = !model.contains_key(&key);
                let (value, made) = map.get_or_make(key, || step);
                assert_eq!((*value, made), (*model.entry(key).or_insert(step), is_new));
                *map.get_mut(&key).unwrap() += 1;
                *model.get_mut(&key).unwrap() += 1;
            }
            assert_eq!((map.len(), map.iter().collect::<BTreeMap<_, _>>()), (model.len(), model.iter().collect()));
            for key in 0..900 {
                assert_eq!((map.get(&key), map.contains(&key)), (model.get(&key), model.contains_key(&key)));
                let some: Vec<_> = model.range(key..=key + 20).map(|(key, value)| (*key, value)).collect();
                assert_eq!(map.range(key, key + 20).into_vec(), some);
            }
            assert!(map.lists.len() == LISTS_MAX && !map.aside.is_empty(), "all parts were used");
        }
    }
}
