//! Long lists, worked on by two threads.

/// Works on a list in two halves and gives both results in order, the second for a list that was cut. From `least` items on
/// the second half has a thread of its own; where none can be had, in a browser for instance, it waits for the first.
pub(crate) fn by_halves<T: Sync, R: Send>(list: &[T], least: usize, work: impl Fn(&[T]) -> R + Sync) -> (R, Option<R>) {
    if list.len() < least {
        return (work(list), None);
    }
    let (first, second) = list.split_at(list.len() / 2);
    std::thread::scope(|scope| {
        let beside = std::thread::Builder::new().spawn_scoped(scope, || work(second));
        let first = work(first);
        let second = match beside {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => work(second),
        };
        (first, Some(second))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_are_the_list_in_order() {
        for length in 0..10u32 {
            let list: Vec<u32> = (0..length).collect();
            let (mut both, second) = by_halves(&list, 4, <[u32]>::to_vec);
            assert_eq!(second.is_some(), length >= 4);
            both.extend(second.unwrap_or_default());
            assert_eq!(both, list);
        }
    }

    #[test]
    #[should_panic(expected = "seven")]
    fn a_panic_of_the_other_thread_is_not_lost() {
        by_halves(&[1, 2, 3, 7], 2, |half| assert!(!half.contains(&7), "seven"));
    }
}
