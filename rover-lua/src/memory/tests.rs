//! Blocks must keep what was written to them, whatever else is taken, grown and given back meanwhile.
#![allow(clippy::unwrap_used)]

use super::*;

/// As Lua's own: `realloc` and `free`.
unsafe extern "C" fn system(_: *mut c_void, block: *mut c_void, _: usize, new: usize) -> *mut c_void {
    // SAFETY: the block came from here.
    unsafe {
        if new == 0 {
            libc::free(block);
            return null_mut();
        }
        libc::realloc(block, new)
    }
}

struct Held {
    block: *mut u8,
    size: usize,
    byte: u8,
}

impl Held {
    /// Every byte is the one that was written.
    fn check(&self, size: usize) {
        // SAFETY: the block has at least so many bytes, all of them written.
        let bytes = unsafe { std::slice::from_raw_parts(self.block, size) };
        assert!(bytes.iter().all(|&byte| byte == self.byte), "a block of {} bytes was overwritten", self.size);
    }

    fn fill(&mut self, byte: u8) {
        self.byte = byte;
        // SAFETY: the block has so many bytes.
        unsafe { self.block.write_bytes(byte, self.size) };
    }
}

/// Sizes as Lua asks for them: mostly small, some beyond what pages hold.
fn size(random: &mut fastrand::Rng) -> usize {
    match random.u8(..) {
        0..200 => random.usize(1..=128),
        200..250 => random.usize(1..=SMALL_MOST),
        _ => random.usize(SMALL_MOST..4 * SMALL_MOST),
    }
}

#[test]
fn blocks_keep_their_bytes_through_a_random_life() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut memory = Memory::new(region::reserve(), 0, system, null_mut());
        let mut held: Vec<Held> = Vec::new();
        for step in 0..40_000 {
            // The number of blocks swells and ebbs, so that pages fill up, empty and come back.
            let swells = step % 8000 < 4000;
            let choice = random.u8(0..10);
            if held.is_empty() || choice < if swells { 6 } else { 3 } {
                let size = size(&mut random);
                // SAFETY: takes a new block.
                let block = unsafe { memory.take(size) };
                assert!(!block.is_null() && block.addr() % 8 == 0);
                let mut new = Held { block, size, byte: 0 };
                new.fill(random.u8(..));
                held.push(new);
                continue;
            }
            let mut chosen = held.swap_remove(random.usize(..held.len()));
            chosen.check(chosen.size);
            if choice == 9 {
                let (old, new) = (chosen.size, size(&mut random));
                // SAFETY: the block has the old size.
                chosen.block = unsafe { memory.resize(chosen.block, old, new) };
                chosen.size = new;
                chosen.check(old.min(new));
                chosen.fill(random.u8(..));
                held.push(chosen);
            } else {
                // SAFETY: the block has that size, and nothing refers to it any more.
                unsafe { memory.give_back(chosen.block, chosen.size) };
            }
        }
        for last in held {
            last.check(last.size);
            // SAFETY: as above.
            unsafe { memory.give_back(last.block, last.size) };
        }
        // Of each size at most one page is left, and it is empty.
        for page in memory.rooms.iter().filter(|page| !page.is_null()) {
            // SAFETY: pages among those with room are alive.
            let page = unsafe { &**page };
            assert!(page.live == 0 && page.next.is_null());
        }
    }
}

#[test]
fn tables_and_strings_of_all_sizes_survive_growing_shrinking_and_collecting() {
    let lua = crate::new_vm();
    let sum: f64 = lua
        .load(
            "local kept, sum = {}, 0
            for round = 1, 20 do
              for size = 1, 200 do
                local t = {}
                for i = 1, size do t[i] = i; t['k' .. i] = ('x'):rep(i) end
                kept[(round * 7 + size) % 97] = t
              end
              collectgarbage()
            end
            for _, t in pairs(kept) do
              for i, v in ipairs(t) do sum = sum + v; assert(#t['k' .. i] == i) end
            end
            return sum",
        )
        .eval()
        .unwrap();
    assert!(sum > 0.0);
}

#[test]
fn without_pages_the_limit_is_not_approached_by_a_collection_for_each_block() {
    let lua = crate::new_vm();
    limit_memory(&lua, 4 << 20).unwrap();
    // SAFETY: nobody else looks at the memory meanwhile. All of the region counts as cut.
    unsafe {
        lua.exec_raw::<()>((), |state| {
            if let Some(memory) = of(state) {
                memory.cut = memory.span;
            }
        })
        .unwrap();
    }
    let busy = crate::Busy::new(&lua);
    let (problem, collections): (String, u32) = lua
        .load(
            "local collections = 0
            local function watch()
              getmetatable(newproxy(true)).__gc = function() collections = collections + 1; watch() end
            end
            watch()
            local ok, problem = pcall(function()
              local t = {}
              while true do t[#t + 1] = { #t } end
            end)
            return problem, collections",
        )
        .eval()
        .unwrap();
    drop(busy);
    assert!(problem.contains("not enough memory"), "{problem}");
    assert!(collections < 40, "{collections} collections");
}
