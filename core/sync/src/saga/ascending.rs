//! A map for keys that mostly come in ascending order, as a bulk stream brings them.

use std::collections::BTreeMap;

use smallvec::SmallVec;

/// A map whose keys lie one behind the other in a list, as long as each is greater than all before: without a search, and in a good
/// half of the room that a tree takes. Keys that come out of order are in a tree beside it.
#[derive(Debug)]
pub(super) struct Ascending<K, V> {
    list: Vec<(K, V)>,
    aside: BTreeMap<K, V>,
}

impl<K, V> Default for Ascending<K, V> {
    fn default() -> Self {
        Self { list: Vec::new(), aside: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V> Ascending<K, V> {
    pub(super) fn len(&self) -> usize {
        self.list.len() + self.aside.len()
    }

    /// Whether the key belongs behind the list.
    fn is_next(&self, key: &K) -> bool {
        self.list.last().is_none_or(|(last, _)| last < key)
    }

    fn place(&self, key: &K) -> Option<usize> {
        if self.is_next(key) { None } else { self.list.binary_search_by(|(there, _)| there.cmp(key)).ok() }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self.place(key) {
            Some(at) => self.list.get(at).map(|(_, value)| value),
            None => self.aside.get(key),
        }
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self.place(key) {
            Some(at) => self.list.get_mut(at).map(|(_, value)| value),
            None => self.aside.get_mut(key),
        }
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, made where there is none; and whether it was made.
    pub(super) fn get_or_make(&mut self, key: K, make: impl FnOnce() -> V) -> (&mut V, bool) {
        if let Some(at) = self.place(&key) {
            return (&mut self.list[at].1, false);
        }
        // One that came out of order may be greater than all of the list.
        let is_aside = !self.aside.is_empty() && self.aside.contains_key(&key);
        if self.is_next(&key) && !is_aside {
            self.list.push((key, make()));
            let at = self.list.len() - 1;
            return (&mut self.list[at].1, true);
        }
        (self.aside.entry(key).or_insert_with(make), !is_aside)
    }

    /// What has a key from `from` to `to`, in order: a few.
    pub(super) fn range(&self, from: K, to: K) -> SmallVec<[(K, &V); 2]> {
        let begin =
            if self.is_next(&from) { self.list.len() } else { self.list.partition_point(|(key, _)| *key < from) };
        let listed = self.list[begin..].iter().take_while(|(key, _)| *key <= to).map(|(key, value)| (*key, value));
        let aside = self.aside.range(from..=to).map(|(key, value)| (*key, value));
        let mut found: SmallVec<[(K, &V); 2]> = listed.chain(aside).collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        found
    }

    /// All of it, in no order that means something.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.list.iter().map(|(key, value)| (key, value)).chain(&self.aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealtide_crypto::{Entropy, SeededEntropy};

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
            assert!(map.list.len() > 20 && !map.aside.is_empty(), "both parts were used");
        }
    }
}
