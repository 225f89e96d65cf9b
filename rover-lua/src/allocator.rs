//! The allocator of the `rover` binary.
//!
//! Comes in: a layout. Goes out: memory of mimalloc. Must not know: what it is for. It stands in this crate because an
//! allocator is `unsafe`; a VM's own memory is `memory`.
//!
//! mimalloc serves a call that names an alignment from a slower path, with a larger block, unless the size of the block
//! is a power of two. All its blocks are aligned for what C programs ask of `malloc`, so most calls need not name one.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// A word: what even the smallest block is aligned to.
const WORD: usize = size_of::<usize>();

/// mimalloc as the global allocator of a program.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: rover_lua::Allocator = rover_lua::Allocator;
/// ```
#[derive(Debug)]
pub struct Allocator;

/// Whether a block of that size is aligned well enough as it comes: to a word, and to two if it is larger than one.
#[inline]
fn is_natural(size: usize, align: usize) -> bool {
    align <= WORD || (align <= 2 * WORD && size > WORD)
}

// SAFETY: mimalloc keeps to the rules of an allocator; its blocks are those of `malloc`, whichever function gave them; and
// what a layout asks for beyond the natural alignment is named.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: any size is allowed, and a layout's alignment is a power of two.
        unsafe { if is_natural(size, align) { mi_malloc(size) } else { mi_malloc_aligned(size, align) } }.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        unsafe { if is_natural(size, align) { mi_zalloc(size) } else { mi_zalloc_aligned(size, align) } }.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller had the block from this allocator, and gives it up.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (block, align) = (block.cast(), layout.align());
        // SAFETY: the caller had the block from this allocator, and gives it up unless this fails.
        unsafe {
            if is_natural(size, align) { mi_realloc(block, size) } else { mi_realloc_aligned(block, size, align) }
        }
        .cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size and alignment that Rust code asks for, new, grown and shrunk.
    #[test]
    fn blocks_are_aligned_as_asked() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in (1..200).chain([255, 256, 1000, 4095, 8192, 8704, 70_000, 1 << 20]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                let grown = size + size / 2 + 1;
                let shrunk = size.div_ceil(3);
                // SAFETY: the block is written within its size, and given back with the layout that it has by then.
                unsafe {
                    for block in [Allocator.alloc(layout), Allocator.alloc_zeroed(layout)] {
                        assert!(!block.is_null() && block.addr() % align == 0, "{size} bytes by {align}");
                        block.write_bytes(7, size);
                        let block = Allocator.realloc(block, layout, grown);
                        assert!(block.addr() % align == 0, "{size} to {grown} bytes by {align}");
                        assert_eq!((*block, *block.add(size - 1)), (7, 7));
                        block.write_bytes(7, grown);
                        let layout = Layout::from_size_align(grown, align).unwrap();
                        let block = Allocator.realloc(block, layout, shrunk);
                        assert!(block.addr() % align == 0, "{grown} to {shrunk} bytes by {align}");
                        assert_eq!((*block, *block.add(shrunk - 1)), (7, 7));
                        Allocator.dealloc(block, Layout::from_size_align(shrunk, align).unwrap());
                    }
                }
            }
        }
    }
}
