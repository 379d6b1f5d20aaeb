//! Values that many components hold: compared by where they are, so that finding out that nothing changed costs nothing.

use std::ops::Deref;
use std::rc::Rc;

#[derive(Debug)]
pub struct Shared<T>(Rc<T>);

impl<T> Shared<T> {
    pub fn new(value: T) -> Self {
        Self(Rc::new(value))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// The new items, but where one is equal to the old one of its key, the old one: what did not change stays where it is.
/// Both are in the order of their keys.
pub fn keep_unchanged<T: PartialEq, K: Ord>(
    old: &[Shared<T>],
    new: Vec<T>,
    key: impl Fn(&T) -> K,
) -> Vec<Shared<T>> {
    let mut old = old.iter().peekable();
    new.into_iter()
        .map(|item| {
            let at = key(&item);
            while old.next_if(|it| key(it) < at).is_some() {}
            match old.next_if(|it| key(it) == at) {
                Some(same) if **same == item => same.clone(),
                _ => Shared::new(item),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_another_one() {
        let old: Vec<_> = [(1, 'a'), (2, 'b'), (4, 'd')].into_iter().map(Shared::new).collect();
        let new = keep_unchanged(&old, vec![(1, 'a'), (2, 'x'), (3, 'c'), (4, 'd')], |it| it.0);
        let same: Vec<bool> = new.iter().map(|it| old.contains(it)).collect();
        assert_eq!(same, [true, false, false, true]);
        assert_eq!(new.iter().map(|it| it.1).collect::<String>(), "axcd");
    }
}
