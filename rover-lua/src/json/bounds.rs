//! How much JSON one value may make: a table may stand in it any number of times, and hold others that do.
//!
//! Comes in: what is being written, and how much that has become. Goes out: whether to go on. Where Lua code waits for it that
//! a watchdog has told to stop, there is nothing to go on for.

use std::cell::Cell;

use crate::{TableView, is_condemned};

/// The most bytes, where no config says otherwise.
const USUAL: usize = 64 << 20;
/// After so many bytes a look is taken whether somebody still wants them.
const STRIDE: usize = 1 << 20;
/// Tables of up to so many places are looked through in no time.
const FEW: usize = 1024;
/// How many places take as long as one byte.
const PLACES_PER_BYTE: usize = 8;

/// The bounds of one VM, and how far the value that is being written may go on.
pub(super) struct Bounds {
    limit: Cell<usize>,
    /// The length of the output at which a look is taken.
    look: Cell<usize>,
    /// The length of the output that is too much.
    end: Cell<usize>,
}

impl Bounds {
    pub(super) fn new() -> Bounds {
        Bounds { limit: Cell::new(USUAL), look: Cell::new(0), end: Cell::new(0) }
    }

    /// Sets the most bytes of one value; 0 for no bound.
    pub(super) fn set(&self, bytes: usize) {
        self.limit.set(if bytes == 0 { usize::MAX } else { bytes });
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Begins a value, of which `out` gets at most `most` bytes where that is less than the limit.
    #[inline]
    pub(super) fn begin(&self, most: usize, out: &[u8]) {
        let end = out.len().saturating_add(self.limit.get().min(most));
        self.end.set(end);
        self.look.set(end.min(out.len() + STRIDE));
    }

    /// Whether `out` may get so many bytes more.
    #[inline(always)]
    pub(super) fn has_room(&self, more: usize, out: &[u8]) -> bool {
        out.len() + more <= self.look.get() || self.look_around(more, out)
    }

    /// As [`has_room`](Bounds::has_room), for a table that is about to be looked through.
    #[inline(always)]
    pub(super) fn admit(&self, table: TableView<'_>, out: &[u8]) -> bool {
        let places = table.places();
        if places > FEW {
            self.spend(places);
        }
        self.has_room(0, out)
    }

    /// Looking through `places` of a table takes its time, even if nothing comes of it.
    #[cold]
    pub(super) fn spend(&self, places: usize) {
        let bytes = places / PLACES_PER_BYTE;
        if self.end.get() != usize::MAX {
            self.end.set(self.end.get().saturating_sub(bytes));
        }
        self.look.set(self.look.get().saturating_sub(bytes));
    }

    #[cold]
    fn look_around(&self, more: usize, out: &[u8]) -> bool {
        let length = out.len().saturating_add(more);
        if length > self.end.get() || is_condemned() {
            self.look.set(0);
            self.end.set(0);
            return false;
        }
        self.look.set(self.end.get().min(length.saturating_add(STRIDE)));
        true
    }

    /// Whether the value that was begun last was refused for its size.
    pub(super) fn is_exceeded(&self) -> bool {
        self.end.get() == 0
    }
}
