//! The heap of the static program: dlmalloc behind the standard library's lock. musl's own heap asks the kernel for many
//! blocks one by one, which takes a tenth of a start; dlmalloc's own lock is musl's, which takes as long as the rest of it.
//!
//! In and out: blocks of memory. Used by every process; a fork finds it unlocked, since [`super::fork`] wants one thread.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::Dlmalloc;

/// All memory that Rust code asks for.
pub struct Heap(Mutex<Dlmalloc>);

impl Heap {
    /// With nothing in it.
    #[expect(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> Self {
        Self(Mutex::new(Dlmalloc::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Dlmalloc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: dlmalloc gives blocks as they are asked for, and the lock gives it to one thread at a time.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment is allowed.
        unsafe { self.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller hands back a block of this layout.
        unsafe { self.lock().free(block, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment is allowed.
        unsafe { self.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller hands back a block of this layout.
        unsafe { self.lock().realloc(block, layout.size(), layout.align(), size) }
    }
}
