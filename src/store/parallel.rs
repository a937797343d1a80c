//! The same small work on many things, on all cores. The threads are joined when it returns.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::Result;

/// Things that a thread takes at a time.
const SHARE: usize = 64;

/// Does it to each, in no order; an error of one thread is told when all have ended.
pub(super) fn each<T: Sync>(things: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let shares = Mutex::new(things.chunks(SHARE));
    let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).next();
    let take_shares = || {
        while let Some(share) = next() {
            share.iter().try_for_each(&work)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(take_shares)).collect();
        all.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn everything_is_done_once_and_errors_are_told() {
        let (things, sum) = ((0..1000).collect::<Vec<usize>>(), AtomicUsize::new(0));
        each(&things, |n| {
            sum.fetch_add(*n, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 499_500);
        assert!(each(&things, |n| if *n == 700 { Err(Error::new("no")) } else { Ok(()) }).is_err());
    }
}
