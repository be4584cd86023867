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

/// Keys in ascending order. Never empty.
#[derive(Debug)]
struct List<K, V> {
    rows: Vec<(K, V)>,
    /// Where the last key that was put in would be: the next one is looked for from here on.
    near: usize,
}

/// So many lists at most: each look-up asks all of them.
const LISTS_MAX: usize = 4;
/// So many rows behind the last place are looked at before all.
const NEAR: usize = 32;

impl<K, V> Default for Ascending<K, V> {
    fn default() -> Self {
        Self { lists: SmallVec::new(), aside: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V> List<K, V> {
    fn is_behind(&self, key: &K) -> bool {
        self.rows.last().is_none_or(|(last, _)| last < key)
    }

    /// The first place whose key is not less.
    fn place(&self, key: &K) -> usize {
        if self.is_behind(key) {
            return self.rows.len();
        }
        let less = |(there, _): &(K, V)| there < key;
        let near = self.near..self.rows.len().min(self.near + NEAR);
        match &self.rows[near.clone()] {
            [first, .., last] if less(first) && !less(last) => near.start + self.rows[near].partition_point(less),
            _ => self.rows.partition_point(less),
        }
    }

    fn find(&self, key: &K) -> Option<usize> {
        let at = self.place(key);
        self.rows.get(at).is_some_and(|(there, _)| there == key).then_some(at)
    }
}

impl<K: Ord + Copy, V> Ascending<K, V> {
    pub(super) fn len(&self) -> usize {
        self.lists.iter().map(|list| list.rows.len()).sum::<usize>() + self.aside.len()
    }

    /// The list that has the key, and where in it.
    fn find(&self, key: &K) -> Option<(usize, usize)> {
        self.lists.iter().enumerate().find_map(|(list, rows)| Some((list, rows.find(key)?)))
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self.find(key) {
            Some((list, at)) => Some(&self.lists[list].rows[at].1),
            None => self.aside.get(key),
        }
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self.find(key) {
            Some((list, at)) => Some(&mut self.lists[list].rows[at].1),
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
            if list.rows.get(at).is_some_and(|(there, _)| *there == key) {
                found = Some((number, at));
                break;
            }
        }
        if let Some((list, at)) = found {
            return (&mut self.lists[list].rows[at].1, false);
        }
        if self.aside.contains_key(&key) {
            return (self.aside.entry(key).or_insert_with(make), false);
        }
        // Behind the list that ends nearest to it.
        let behind = self.lists.iter().enumerate().filter(|(_, list)| list.is_behind(&key));
        let list = behind.max_by_key(|(_, list)| list.rows.last().map(|(last, _)| *last)).map(|(number, _)| number);
        let list = match list {
            Some(list) => list,
            None if self.lists.len() < LISTS_MAX => {
                self.lists.push(List { rows: Vec::new(), near: 0 });
                self.lists.len() - 1
            }
            None => return (self.aside.entry(key).or_insert_with(make), true),
        };
        let rows = &mut self.lists[list].rows;
        rows.push((key, make()));
        let at = rows.len() - 1;
        (&mut rows[at].1, true)
    }

    /// What has a key from `from` to `to`, in order: a few.
    pub(super) fn range(&self, from: K, to: K) -> SmallVec<[(K, &V); 2]> {
        let listed = self.lists.iter().flat_map(|list| {
            list.rows[list.place(&from)..].iter().take_while(|(key, _)| *key <= to).map(|(key, value)| (*key, value))
        });
        let aside = self.aside.range(from..=to).map(|(key, value)| (*key, value));
        let mut found: SmallVec<[(K, &V); 2]> = listed.chain(aside).collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        found
    }

    /// All of it, in no order that means something.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.lists.iter().flat_map(|list| &list.rows).map(|(key, value)| (key, value)).chain(&self.aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealtide_crypto::{Entropy, SeededEntropy};

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
