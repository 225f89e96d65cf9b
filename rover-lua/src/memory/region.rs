//! Addresses for the pages of one VM: reserved in one piece, and without memory until they are touched.
//!
//! Goes out: where they begin. This module must not know of pages in use.

use std::ptr::null_mut;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use super::{PAGE, REGION};

/// Addresses for the pages of one VM.
pub(super) fn reserve() -> Option<*mut u8> {
    // SAFETY: the mapping is anonymous and private.
    unsafe {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let region = mmap_anonymous(null_mut(), REGION + PAGE, ProtFlags::READ | ProtFlags::WRITE, flags).ok()?;
        // A page in use must not make 2 MB resident.
        let _ = madvise(region, REGION + PAGE, Advice::LinuxNoHugepage);
        Some(region.cast())
    }
}
