//! The libraries that this process was started with.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};

/// Their paths, by which the loader found them (dl_iterate_phdr(3)), each with a NUL byte.
pub(crate) fn loaded() -> Vec<u8> {
    unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, paths: *mut c_void) -> c_int {
        // SAFETY: `paths` is the vector below, and the loader's strings are valid during the call.
        let (paths, name) = unsafe { (&mut *paths.cast::<Vec<u8>>(), CStr::from_ptr((*info).dlpi_name)) };
        // The executable has no name, and the vDSO no path.
        if name.to_bytes().starts_with(b"/") {
            paths.extend(name.to_bytes_with_nul());
        }
        0
    }
    let mut paths = Vec::new();
    // SAFETY: `note` gets the vector, which outlives the call, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut paths).cast()) };
    paths
}
