-- Writes a value in LuaJIT's serialization format into one buffer, again and again. `metatables` are the ones that the
-- format can tell apart.

local metatables = ...

local buffer = require "string.buffer"

local out = buffer.new { metatable = metatables }
local encode, ref, reset = out.encode, out.ref, out.reset

local function write(value)
  return ref(encode(reset(out), value))
end

local function free()
  out:free()
end

-- A call from C begins in the interpreter: entering and leaving compiled code would cost more than these few steps.
if jit then jit.off(write) end

return write, free
