//! A text that grows, in memory of the VM: it is counted in the VM's limit, and collected where an error ends the function
//! that fills it.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use mlua::ffi;

use super::raise_text;
use crate::memory;

/// The first bytes lie on the C stack; LuaJIT's own function takes as many.
const FIRST: usize = 8 * 1024;
/// The longest string of LuaJIT's.
const LONGEST: usize = 0x7fff_ff00;

/// Owns nothing: what it has grown into is a userdata on the stack.
pub(super) struct Buffer {
    first: [MaybeUninit<u8>; FIRST],
    /// The userdata's content; null while `first` is enough.
    grown: *mut u8,
    capacity: usize,
    length: usize,
    /// The place on the stack that is the buffer's.
    index: c_int,
}

impl Buffer {
    /// An empty buffer, whose place on the stack is `index`.
    #[inline]
    pub(super) fn new(index: c_int) -> Buffer {
        Buffer { first: [MaybeUninit::uninit(); FIRST], grown: std::ptr::null_mut(), capacity: FIRST, length: 0, index }
    }

    #[inline(always)]
    fn start(&mut self) -> *mut u8 {
        if self.grown.is_null() { self.first.as_mut_ptr().cast() } else { self.grown }
    }

    /// Appends `bytes`.
    ///
    /// # Safety
    /// `l` is alive and the buffer's, and no frame up to the next protected call owns anything.
    #[inline]
    pub(super) unsafe fn append(&mut self, l: *mut ffi::lua_State, bytes: &[u8]) {
        // SAFETY: there is room for so many bytes behind what is there; `bytes` are not the buffer's own.
        unsafe {
            if bytes.len() > self.capacity - self.length {
                self.grow(l, bytes.len());
            }
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start().add(self.length), bytes.len());
        }
        self.length += bytes.len();
    }

    /// # Safety
    /// As for [`append`](Buffer::append).
    #[cold]
    unsafe fn grow(&mut self, l: *mut ffi::lua_State, more: usize) {
        let needed = self.length.saturating_add(more);
        // SAFETY: the caller's promise; the stack has room by rule 2, and the old content is kept alive by it until the new
        // one takes its place.
        unsafe {
            if needed > LONGEST {
                raise_text(l, c"resulting string too large");
            }
            let capacity = (self.capacity * 2).max(needed);
            want(l, capacity);
            let grown = ffi::lua_newuserdata(l, capacity).cast::<u8>();
            std::ptr::copy_nonoverlapping(self.start(), grown, self.length);
            ffi::lua_replace(l, self.index);
            self.grown = grown;
            self.capacity = capacity;
        }
    }

    /// Pushes the text.
    ///
    /// # Safety
    /// As for [`append`](Buffer::append).
    pub(super) unsafe fn push(&mut self, l: *mut ffi::lua_State) {
        // SAFETY: so many bytes have been written; the caller's promise.
        unsafe {
            want(l, self.length);
            ffi::lua_pushlstring_(l, self.start().cast(), self.length);
        }
    }
}

/// Raises Lua's "not enough memory" where the VM may not have so many bytes more, even after all garbage is collected: to
/// a C function that is not of Lua's own library, the VM refuses nothing.
///
/// # Safety
/// As for [`Buffer::append`].
unsafe fn want(l: *mut ffi::lua_State, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if bytes > memory::left(l) {
            memory::collect(l);
            if bytes > memory::left(l) {
                memory::fail(l);
                raise_text(l, c"not enough memory");
            }
        }
    }
}
