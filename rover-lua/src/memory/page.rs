//! A page: blocks of one size, and its place among the pages that have room.

use super::STEP;

#[repr(C)]
pub(super) struct Page {
    /// Blocks that were given back.
    pub(super) free: *mut Block,
    /// Where the first block that was never handed out begins, from the start of the page.
    pub(super) fresh: usize,
    /// Size of its blocks.
    pub(super) size: usize,
    /// Blocks that are in use.
    pub(super) live: usize,
    /// Neighbours among the pages of its size that have room.
    pub(super) previous: *mut Page,
    pub(super) next: *mut Page,
    pub(super) has_room: bool,
}

/// Blocks begin behind the page's own record.
pub(super) const FIRST: usize = size_of::<Page>().next_multiple_of(STEP);

#[repr(C)]
pub(super) struct Block {
    pub(super) next: *mut Block,
}
