-- Makes a function that makes a table with the given keys of its arguments. LuaJIT copies such a table from one that has
-- the keys already, which costs less than setting them one by one.

local concat, format, load, select = table.concat, string.format, load, select
local off = jit and jit.off

return function(...)
  local values, fields = {}, {}
  for n = 1, select("#", ...) do
    values[n] = "v" .. n
    fields[n] = format("[%q]=v%d", (select(n, ...)), n)
  end
  local source = format("return function(%s) return {%s} end", concat(values, ","), concat(fields, ","))
  local make = load(source, "=rover/shape")()
  -- A call from C begins in the interpreter: entering and leaving compiled code would cost more than these few steps.
  if off then off(make) end
  return make
end
