//! Comes in: a thread that stands still. Goes out: the addresses on its stack, from the function that runs to the
//! thread's first. Must not know: their names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{FrameAddress, Unwinder};

use crate::maps::{self, Loaded};
use crate::tracee::Thread;

/// More than any stack of an async server has; what is deeper is cut off.
const DEPTH: usize = 200;

/// Bytes of stack that are read, from the stack pointer up.
const STACK: usize = 64 * 1024;

/// Bytes that the frame of compiled code takes at most: that of the VM and what the code itself spills.
const COMPILED: u64 = 2048;

/// How long what is loaded is believed to be the same, when an address belongs to nothing known.
const MAPS_ARE_FRESH: Duration = Duration::from_millis(250);

/// One place on a stack.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Place {
    /// An address to look a name up with.
    Code(u64),
    /// Code that LuaJIT made while the program ran.
    Compiled,
    /// What called this could not be found out.
    Lost,
}

/// Walks stacks by the unwind tables of the files that the program has loaded.
#[derive(Default)]
pub(crate) struct Stacks {
    unwinder: UnwinderX86_64<Arc<[u8]>>,
    cache: CacheX86_64,
    loaded: Vec<Loaded>,
    looked: Option<Instant>,
}

impl Stacks {
    /// The stack of `thread`.
    pub(crate) fn of(&mut self, thread: &Thread) -> Vec<Place> {
        let now = &thread.registers;
        let mut bytes = vec![0; STACK];
        let read = thread.read(now.rsp, &mut bytes);
        bytes.truncate(read);
        let stack = Stack { start: now.rsp, bytes };

        let registers = UnwindRegsX86_64::new(now.rip, now.rsp, now.rbp);
        let mut places = Vec::new();
        if !self.walk(thread, &stack, FrameAddress::from_instruction_pointer(now.rip), registers, &mut places) {
            places.push(Place::Lost);
        }
        places
    }

    /// Puts the place at `address` and all that called it into `places`; false where the way to the thread's first
    /// function was lost.
    fn walk(
        &mut self,
        thread: &Thread,
        stack: &Stack,
        mut address: FrameAddress,
        mut registers: UnwindRegsX86_64,
        places: &mut Vec<Place>,
    ) -> bool {
        while places.len() < DEPTH {
            let lookup = address.address_for_lookup();
            if !self.is_loaded(lookup, thread) {
                places.push(Place::Compiled);
                return self.walk_from_compiled(thread, stack, registers.sp(), places);
            }
            places.push(Place::Code(lookup));
            let mut word = |at| stack.word(at).ok_or(());
            match self.unwinder.unwind_frame(address, &mut registers, &mut self.cache, &mut word) {
                Ok(Some(caller)) => match FrameAddress::from_return_address(caller) {
                    Some(caller) => address = caller,
                    None => return true,
                },
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    /// Code that LuaJIT compiled has no unwind table. It stands in the stack frame of LuaJIT's VM, whose size is not
    /// known: what called it is the first return address on the stack from which a walk comes to a good end.
    fn walk_from_compiled(&mut self, thread: &Thread, stack: &Stack, sp: u64, places: &mut Vec<Place>) -> bool {
        let before = places.len();
        let sp = sp.next_multiple_of(8);
        for at in (sp..sp.saturating_add(COMPILED)).step_by(8) {
            let (Some(value), Some(saved_bp)) = (stack.word(at), stack.word(at.wrapping_sub(8))) else { continue };
            if !self.loaded.iter().any(|each| each.range.contains(&value) && each.follows_call(value)) {
                continue;
            }
            let Some(caller) = FrameAddress::from_return_address(value) else { continue };
            // The VM's first instruction is `push rbp`.
            let registers = UnwindRegsX86_64::new(value, at + 8, saved_bp);
            if self.walk(thread, stack, caller, registers, places) {
                return true;
            }
            places.truncate(before);
        }
        false
    }

    /// What has been loaded, for names.
    pub(crate) fn into_loaded(self) -> Vec<Loaded> {
        self.loaded
    }

    fn is_loaded(&mut self, address: u64, thread: &Thread) -> bool {
        let contains = |loaded: &[Loaded]| loaded.iter().any(|each| each.range.contains(&address));
        if contains(&self.loaded) {
            return true;
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < MAPS_ARE_FRESH) {
            return false;
        }
        let known = |start| self.loaded.iter().any(|each| each.range.start == start);
        let memory = |range: std::ops::Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            thread.read(range.start, &mut bytes);
            bytes
        };
        for (loaded, module) in maps::new(thread.process.as_raw(), known, memory) {
            self.unwinder.add_module(module);
            self.loaded.push(loaded);
        }
        self.looked = Some(Instant::now());
        contains(&self.loaded)
    }
}

/// A copy of a part of a stack.
struct Stack {
    start: u64,
    bytes: Vec<u8>,
}

impl Stack {
    fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let word = self.bytes.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    }
}
