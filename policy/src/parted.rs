//! Collections in parts: a copy shares every part with the original until one of the two changes it.
//!
//! A snapshot is a copy of what its store holds at the moment, and the next one differs in a pod: so a
//! copy must cost next to nothing, and a change no more than the part that it is in.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};

/// Parts of a map: a copy counts them up, a change copies one.
const PARTS: usize = 128;
/// Slots in a chunk.
const CHUNK: usize = 64;

/// A hash map in parts.
#[derive(Clone, Debug)]
pub(crate) struct Parted<K, V> {
    parts: Vec<Arc<FxHashMap<K, V>>>,
}

impl<K, V> Default for Parted<K, V> {
    fn default() -> Self {
        Self {
            parts: vec![Arc::default(); PARTS],
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Parted<K, V> {
    fn part<Q: Hash + ?Sized>(key: &Q) -> usize {
        // Not the bits that the maps inside go by.
        (FxBuildHasher.hash_one(key) >> 32) as usize % PARTS
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.parts.get(Self::part(key))?.get(key)
    }

    /// The value of `key`, for a change; `None` copies nothing.
    pub(crate) fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let part = self.parts.get_mut(Self::part(key))?;
        if !part.contains_key(key) {
            return None;
        }
        Arc::make_mut(part).get_mut(key)
    }

    /// Changes the value of `key`, which is made if it is not there.
    pub(crate) fn update(&mut self, key: K, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        if let Some(part) = self.parts.get_mut(Self::part(&key)) {
            change(Arc::make_mut(part).entry(key).or_default());
        }
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let part = self.parts.get_mut(Self::part(&key))?;
        Arc::make_mut(part).insert(key, value)
    }

    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let part = self.parts.get_mut(Self::part(key))?;
        if !part.contains_key(key) {
            return None;
        }
        Arc::make_mut(part).remove(key)
    }

    /// Every entry, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }
}

impl<K: Hash + Eq + Clone, I: Copy + PartialEq> Parted<K, Arc<Vec<I>>> {
    /// The list of `key`.
    pub(crate) fn list<Q>(&self, key: &Q) -> &[I]
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).map_or(&[], |list| list.as_slice())
    }

    /// Puts `item` into the list of `key`, once, behind those that precede it.
    pub(crate) fn put(&mut self, key: K, item: I, precedes: impl Fn(I) -> bool) {
        self.update(key, |list| {
            let place = list.partition_point(|other| precedes(*other));
            if list.get(place) != Some(&item) {
                Arc::make_mut(list).insert(place, item);
            }
        });
    }

    /// Takes `item` out of the list of `key`, and the list out with its last item.
    pub(crate) fn take<Q>(&mut self, key: &Q, item: I)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Some(list) = self.get_mut(key) else {
            return;
        };
        if list.len() > 1 {
            if list.contains(&item) {
                Arc::make_mut(list).retain(|other| *other != item);
            }
        } else if list.contains(&item) {
            self.remove(key);
        }
    }
}

/// Values at numbered places; the number of one that was taken out is given again.
#[derive(Clone, Debug)]
pub(crate) struct Slots<T> {
    chunks: Vec<Arc<Vec<Option<T>>>>,
    free: Vec<u32>,
    next: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            next: 0,
        }
    }
}

impl<T: Clone> Slots<T> {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        (self.next as usize).saturating_sub(self.free.len())
    }

    /// Gives a value its number; `None` when there are no more numbers.
    pub(crate) fn add(&mut self, value: T) -> Option<u32> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = self.next;
                self.next = id.checked_add(1)?;
                id
            }
        };
        let (chunk, place) = Self::split(id);
        if chunk == self.chunks.len() {
            self.chunks.push(Arc::new(vec![None; CHUNK]));
        }
        *Arc::make_mut(self.chunks.get_mut(chunk)?).get_mut(place)? = Some(value);
        Some(id)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        let (chunk, place) = Self::split(id);
        self.chunks.get(chunk)?.get(place)?.as_ref()
    }

    /// The value with this number, for a change.
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let (chunk, place) = Self::split(id);
        Arc::make_mut(self.chunks.get_mut(chunk)?)
            .get_mut(place)?
            .as_mut()
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        self.get(id)?;
        let (chunk, place) = Self::split(id);
        let value = Arc::make_mut(self.chunks.get_mut(chunk)?)
            .get_mut(place)?
            .take();
        self.free.push(id);
        value
    }

    /// Every value with its number, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0u32..)
            .zip(slots)
            .filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    fn split(id: u32) -> (usize, usize) {
        (id as usize / CHUNK, id as usize % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_not_changed_with_its_original() {
        let mut map: Parted<Arc<str>, Arc<Vec<u32>>> = Parted::default();
        for i in 0..1_000u32 {
            map.put(format!("k{}", i % 500).into(), i, |other| other < i);
        }
        let copy = map.clone();
        for i in 0..500u32 {
            map.take(format!("k{i}").as_str(), i);
        }
        map.remove("k7");
        assert_eq!(copy.list("k7"), [7, 507]);
        assert_eq!(map.list("k7"), [0u32; 0]);
        assert_eq!(map.list("k8"), [508]);
        map.take("k8", 508);
        assert!(map.get("k8").is_none());
        assert_eq!((copy.iter().count(), map.iter().count()), (500, 498));
        let shared = copy.parts.iter().zip(&map.parts);
        let shared = shared.filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared < PARTS, "{shared}");
        let mut one = copy.clone();
        one.put("new".into(), 1, |_| false);
        let shared = copy.parts.iter().zip(&one.parts);
        let shared = shared.filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, PARTS - 1);
    }

    #[test]
    fn numbers_are_given_again() {
        let mut slots = Slots::default();
        for i in 0..200u32 {
            assert_eq!(slots.add(i), Some(i));
        }
        let copy = slots.clone();
        assert_eq!(slots.remove(77), Some(77));
        assert_eq!(slots.remove(77), None);
        assert_eq!((slots.get(77), slots.len()), (None, 199));
        assert_eq!(slots.add(1_000), Some(77));
        *slots.get_mut(3).unwrap() = 5;
        assert_eq!((copy.get(77), copy.get(3)), (Some(&77), Some(&3)));
        assert_eq!(slots.iter().count(), 200);
        assert_eq!(slots.get(9_999), None);
    }
}
