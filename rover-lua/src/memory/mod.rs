//! The memory of one VM: small blocks from pages of their own, everything else from the process's allocator.
//!
//! A VM lives on one thread and makes small objects at every request, so its blocks need neither a lock nor a search:
//! a page holds blocks of one size, and taking or giving back a block moves one pointer. Against mlua's allocator over
//! mimalloc it saves 1 246 of 15 727 instructions of a small JSON echo (`tests/perf/gate`, script `echo`; together with
//! one block for a context and its places).
//!
//! Pages lie in a region of reserved addresses, so that a block can be told from one that was allocated before the
//! switch by two comparisons. Reserved addresses cost nothing until they are touched, and a page whose last block goes
//! is given back to the system, but for a few.
//!
//! A VM may have a limit. Near it, garbage is collected at the next instruction of Lua; what then goes beyond the limit is
//! refused with Lua's own "not enough memory", but only to Lua code and Lua's own library: an error raised within Rust
//! code could not be caught. What Rust code takes beyond the limit is found at the next instruction of Lua.

mod page;
mod region;

use std::ffi::c_void;
use std::ptr::{self, null_mut};

use self::page::{Block, FIRST, Page};
use super::weight::{self, Outside};
use super::{layout, pulse};
use mlua::ffi;
use rustix::mm::{Advice, madvise, munmap};

/// Blocks up to this size come from pages, in bytes.
const SMALL_MOST: usize = 512;
/// Sizes of blocks are multiples of this, in bytes.
const STEP: usize = 16;
const CLASSES: usize = SMALL_MOST / STEP + 1;
/// Bytes of a page, which begins at a multiple of it.
const PAGE: usize = 16 * 1024;
/// Addresses reserved for a VM. What does not fit comes from the process's allocator.
const REGION: usize = 1 << 30;
/// Empty pages that are kept for the next burst.
const SPARE_MOST: usize = 16;

pub(super) struct Memory {
    /// The pages with room, by size.
    rooms: [*mut Page; CLASSES],
    region: *mut u8,
    /// Its size in bytes; 0 where there is none.
    span: usize,
    /// How much of the region has been cut into pages.
    cut: usize,
    /// Empty pages, linked by `next`.
    spare: *mut Page,
    spares: usize,
    /// Bytes that the VM holds; 0 once it is closed.
    used: usize,
    other: ffi::lua_Alloc,
    other_state: *mut c_void,
    pub(super) limit: Limit,
}

/// How much a VM may hold.
pub(super) struct Limit {
    /// Bytes beyond which Lua code gets nothing; `usize::MAX` where there is no limit.
    most: usize,
    /// Bytes beyond which garbage is collected.
    soft: usize,
    main: *mut ffi::lua_State,
    /// See [`layout::current_offset`].
    current: usize,
    /// The next large block is refused.
    is_failing: bool,
    /// What is held on the VM's behalf, and counts as its own.
    pub(super) outside: Outside,
}

/// Puts `lua`, which must have just been created, on memory of its own.
pub(super) fn install(lua: &mlua::Lua) -> mlua::Result<()> {
    // Without a region, everything comes from the other allocator, and is counted.
    let region = if cfg!(vm_on_system_memory) { None } else { region::reserve() };
    // SAFETY: the allocator is exchanged while no allocation is under way; blocks that exist stay with the old one,
    // whose function and state are kept for them. `exchange` frees the new state with the VM's last block.
    unsafe {
        lua.exec_raw::<()>((), |state| {
            let mut other_state = null_mut();
            let other = ffi::lua_getallocf(state, &mut other_state);
            let kilobytes = ffi::lua_gc(state, ffi::LUA_GCCOUNT, 0) as usize;
            let bytes = ffi::lua_gc(state, ffi::LUA_GCCOUNTB, 0) as usize;
            let memory = Box::new(Memory::new(region, kilobytes * 1024 + bytes, other, other_state));
            ffi::lua_setallocf(state, allocate, Box::into_raw(memory).cast());
        })
    }
}

/// Sets how many bytes the VM may hold; 0 for no limit.
///
/// # Errors
/// When `lua` does not have memory of its own, as [`new_vm`](crate::new_vm) gives it.
pub fn limit_memory(lua: &mlua::Lua, bytes: usize) -> mlua::Result<()> {
    let most = if bytes == 0 { usize::MAX } else { bytes };
    let current = layout::current_offset(lua);
    let mut is_set = false;
    // SAFETY: the memory behind the allocator is `install`'s, and nobody else looks at it now.
    unsafe {
        lua.exec_raw::<()>((), |state| {
            if let (Some(memory), Some(current)) = (of(state), current) {
                let outside = memory.limit.outside.clone();
                memory.limit = Limit { most, soft: soft(most), main: state, current, is_failing: false, outside };
                is_set = true;
            }
        })?;
    }
    if is_set { Ok(()) } else { Err(mlua::Error::runtime("memory_limit cannot be kept here")) }
}

impl Outside {
    /// Where what is held on behalf of `lua` is counted.
    pub fn of(lua: &mlua::Lua) -> Outside {
        let mut found = None;
        // SAFETY: nobody else looks at the VM's memory now.
        let _ = unsafe {
            lua.exec_raw::<()>((), |state| found = self::of(state).map(|memory| memory.limit.outside.clone()))
        };
        found.unwrap_or_default()
    }
}

/// Where collecting begins when little is in use.
fn soft(most: usize) -> usize {
    most / 4 * 3
}

/// The memory of the VM of `state`, if it has its own.
///
/// # Safety
/// `state` is alive, and nothing else refers to its memory while the result is used.
pub(super) unsafe fn of<'a>(state: *mut ffi::lua_State) -> Option<&'a mut Memory> {
    let mut memory = null_mut();
    // SAFETY: only `install` sets this function, and its state is a `Memory` that lives as long as the VM.
    unsafe {
        let function = ffi::lua_getallocf(state, &raw mut memory);
        if ptr::fn_addr_eq(function, allocate as ffi::lua_Alloc) { memory.cast::<Memory>().as_mut() } else { None }
    }
}

/// Collects all garbage. Gives the limit in words where what is left is beyond it.
///
/// # Safety
/// `state` is alive, and this is its thread. Must not be called by the allocator.
pub(super) unsafe fn collect(state: *mut ffi::lua_State) -> Option<String> {
    // SAFETY: the memory is not borrowed while the VM collects, which uses it.
    unsafe {
        of(state)?;
        ffi::lua_gc(state, ffi::LUA_GCCOLLECT, 0);
        let memory = of(state)?;
        let most = memory.limit.most;
        // Where much is in use the next collection comes sooner, but never for less than a 64th of the limit.
        let last = most - most / 64;
        let used = memory.used_in_all();
        memory.limit.soft = soft(most).max(used.saturating_add(most.saturating_sub(used) / 2)).min(last);
        (used >= last).then(|| weight::text(most))
    }
}

/// How many bytes the VM may still have.
///
/// # Safety
/// As for [`collect`].
pub(super) unsafe fn left(state: *mut ffi::lua_State) -> usize {
    // SAFETY: the caller's promise.
    unsafe { of(state).map_or(usize::MAX, |memory| memory.limit.most.saturating_sub(memory.used_in_all())) }
}

/// Raises Lua's "not enough memory", which `pcall` catches and no message handler sees. Returns where it cannot.
///
/// # Safety
/// As for [`collect`]; and no frame up to the next protected call owns anything.
pub(super) unsafe fn fail(state: *mut ffi::lua_State) {
    // SAFETY: nothing is borrowed when the error is thrown.
    unsafe {
        let Some(memory) = of(state) else { return };
        memory.limit.is_failing = true;
        memory.limit.soft = 0;
        ffi::lua_newuserdata(state, 2 * SMALL_MOST);
    }
}

/// Collects garbage if more than usual is in use. To be called when something large may have become garbage.
///
/// # Safety
/// As for [`collect`].
pub(super) unsafe fn relieve(state: *mut ffi::lua_State) {
    // SAFETY: the caller's promise.
    unsafe {
        if of(state).is_some_and(|memory| memory.used_in_all() > memory.limit.soft) {
            collect(state);
        }
    }
}

/// What Lua calls for every block: see `lua_Alloc`.
unsafe extern "C" fn allocate(state: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    // SAFETY: `state` is the box that `install` leaked, alive until the last block is freed; Lua uses it from one
    // thread. `block` has `old` bytes and came from here or from the other allocator.
    unsafe {
        let memory = &mut *state.cast::<Memory>();
        if block.is_null() {
            let made = memory.take(new);
            if !made.is_null() {
                memory.used += new;
            }
            return made.cast();
        }
        if new == 0 {
            memory.give_back(block.cast(), old);
            memory.used = memory.used.saturating_sub(old);
            if memory.used == 0 {
                drop(Box::from_raw(state.cast::<Memory>()));
            }
            return null_mut();
        }
        let moved = memory.resize(block.cast(), old, new);
        if !moved.is_null() {
            memory.used = memory.used.saturating_sub(old) + new;
        }
        moved.cast()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.span == 0 {
            return;
        }
        // SAFETY: the VM is closed, so nothing points into the region any more.
        unsafe {
            let _ = munmap(self.region.cast(), self.span);
        }
    }
}

impl Memory {
    /// Pages in `region`, which [`reserve`] gave and dropping this gives up, and all else from `other`.
    fn new(region: Option<*mut u8>, used: usize, other: ffi::lua_Alloc, other_state: *mut c_void) -> Memory {
        let outside = Outside::default();
        let limit =
            Limit { most: usize::MAX, soft: usize::MAX, main: null_mut(), current: 0, is_failing: false, outside };
        Memory {
            rooms: [null_mut(); CLASSES],
            region: region.unwrap_or(null_mut()),
            span: region.map_or(0, |_| REGION + PAGE),
            cut: region.map_or(0, |region| region.align_offset(PAGE)),
            spare: null_mut(),
            spares: 0,
            used,
            other,
            other_state,
            limit,
        }
    }

    /// Bytes that the VM holds, and that are held on its behalf.
    #[inline]
    fn used_in_all(&self) -> usize {
        self.used.saturating_add(self.limit.outside.bytes())
    }

    /// Whether the VM may have so many bytes more.
    #[inline]
    fn admits(&mut self, more: usize) -> bool {
        self.used_in_all().saturating_add(more) <= self.limit.soft || self.admits_beyond(more)
    }

    /// Has garbage collected, and refuses what Lua code may not have.
    #[cold]
    fn admits_beyond(&mut self, more: usize) -> bool {
        if std::mem::take(&mut self.limit.is_failing) {
            self.limit.soft = soft(self.limit.most);
            return false;
        }
        let Limit { most, main, current, .. } = self.limit;
        // SAFETY: the main coroutine lives as long as the VM, and this is its thread.
        unsafe {
            if !pulse::is_running(main) {
                return true;
            }
            pulse::want_collection(main);
            self.used_in_all().saturating_add(more) <= most || pulse::is_nested() || !layout::runs_lua(main, current)
        }
    }

    /// # Safety
    /// As for `allocate`.
    #[inline]
    unsafe fn take(&mut self, size: usize) -> *mut u8 {
        if size > SMALL_MOST {
            if !self.admits(size) {
                return null_mut();
            }
            // SAFETY: asks for a new block.
            return unsafe { (self.other)(self.other_state, null_mut(), 0, size).cast() };
        }
        let class = size.div_ceil(STEP).max(1);
        // SAFETY: a page in `rooms` is alive and has room, which is either a block in its list or fresh space.
        unsafe {
            let mut page = self.rooms[class];
            if page.is_null() {
                // Asking for a page where there is none to be had would collect for each block close to the limit.
                let more = if self.has_page() { PAGE } else { size };
                if !self.admits(more) {
                    return null_mut();
                }
                page = self.new_page(class);
                if page.is_null() {
                    return (self.other)(self.other_state, null_mut(), 0, size).cast();
                }
            }
            (*page).live += 1;
            let block = (*page).free;
            if !block.is_null() {
                (*page).free = (*block).next;
                if (*page).free.is_null() && (*page).fresh + (*page).size > PAGE {
                    self.leave(page, class);
                }
                return block.cast();
            }
            let fresh = page.cast::<u8>().add((*page).fresh);
            (*page).fresh += (*page).size;
            if (*page).fresh + (*page).size > PAGE {
                self.leave(page, class);
            }
            fresh
        }
    }

    /// # Safety
    /// As for `allocate`.
    #[inline]
    unsafe fn give_back(&mut self, block: *mut u8, size: usize) {
        if !self.is_own(block) {
            // SAFETY: the block came from the other allocator.
            unsafe { (self.other)(self.other_state, block.cast(), size, 0) };
            return;
        }
        // SAFETY: an own block lies in a page, which begins at the multiple of `PAGE` below it.
        unsafe {
            let page = block.map_addr(|address| address & !(PAGE - 1)).cast::<Page>();
            let block = block.cast::<Block>();
            (*block).next = (*page).free;
            (*page).free = block;
            (*page).live -= 1;
            let class = (*page).size / STEP;
            if !(*page).has_room {
                self.enter(page, class);
            } else if (*page).live == 0 && !((*page).next.is_null() && (*page).previous.is_null()) {
                self.leave(page, class);
                self.retire(page);
            }
        }
    }

    /// # Safety
    /// As for `allocate`.
    unsafe fn resize(&mut self, block: *mut u8, old: usize, new: usize) -> *mut u8 {
        // SAFETY: each branch keeps the block with the allocator that it came from, or copies what both sizes hold.
        unsafe {
            let own = self.is_own(block);
            if !own && new > SMALL_MOST {
                if new > old && !self.admits(new - old) {
                    return null_mut();
                }
                return (self.other)(self.other_state, block.cast(), old, new).cast();
            }
            if own && new <= SMALL_MOST && new.div_ceil(STEP) == old.div_ceil(STEP) {
                return block;
            }
            let moved = self.take(new);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, old.min(new));
                self.give_back(block, old);
            }
            moved
        }
    }

    #[inline]
    fn is_own(&self, block: *mut u8) -> bool {
        block.addr().wrapping_sub(self.region.addr()) < self.span
    }

    /// Whether there is a page that holds no blocks.
    fn has_page(&self) -> bool {
        !self.spare.is_null() || self.cut + PAGE <= self.span
    }

    /// # Safety
    /// As for `allocate`.
    #[cold]
    unsafe fn new_page(&mut self, class: usize) -> *mut Page {
        // SAFETY: a spare page is empty; a new one lies within the region.
        unsafe {
            if !self.has_page() {
                return null_mut();
            }
            let page = if self.spare.is_null() {
                let page = self.region.add(self.cut).cast::<Page>();
                self.cut += PAGE;
                page
            } else {
                let page = self.spare;
                self.spare = (*page).next;
                self.spares -= 1;
                page
            };
            page.write(Page {
                free: null_mut(),
                fresh: FIRST,
                size: class * STEP,
                live: 0,
                previous: null_mut(),
                next: null_mut(),
                has_room: false,
            });
            self.enter(page, class);
            page
        }
    }

    /// Puts a page first among those with room.
    ///
    /// # Safety
    /// The page is alive, and not among them.
    unsafe fn enter(&mut self, page: *mut Page, class: usize) {
        // SAFETY: links pages that are alive.
        unsafe {
            let first = self.rooms[class];
            (*page).has_room = true;
            (*page).previous = null_mut();
            (*page).next = first;
            if !first.is_null() {
                (*first).previous = page;
            }
            self.rooms[class] = page;
        }
    }

    /// Takes a page from those with room.
    ///
    /// # Safety
    /// The page is alive, and among them.
    unsafe fn leave(&mut self, page: *mut Page, class: usize) {
        // SAFETY: links pages that are alive.
        unsafe {
            (*page).has_room = false;
            let (previous, next) = ((*page).previous, (*page).next);
            if previous.is_null() {
                self.rooms[class] = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
        }
    }

    /// Keeps an empty page for any size, and gives its memory back to the system when there are enough of them.
    ///
    /// # Safety
    /// The page is empty and not among those with room.
    #[cold]
    unsafe fn retire(&mut self, page: *mut Page) {
        // SAFETY: nothing uses the page's memory but its record, which is written again before it is read: the link is
        // set after the advice.
        unsafe {
            if self.spares >= SPARE_MOST {
                let _ = madvise(page.cast(), PAGE, Advice::LinuxDontNeed);
            }
            (*page).next = self.spare;
            self.spare = page;
            self.spares += 1;
        }
    }
}

#[cfg(test)]
mod tests;
