-- The parts of `rover` that need nothing but Lua. Comes in: `native`, functions that Rust lends, and `mistake`, which
-- raises at the line of the app. Goes out: `array` and `print`.

local native, mistake = ...

local select, setmetatable, tostring, type = select, setmetatable, tostring, type
local concat = table.concat

--- `rover.array(t)` marks `t`, or a new table, as an array for JSON, however empty it is.
local function array(t)
  if t == nil then t = {} end
  if type(t) ~= "table" then mistake("rover.array expects a table, not a " .. type(t)) end
  return setmetatable(t, native.array)
end

--- `print(…)` logs its arguments at info.
local function print(...)
  local words = { ... }
  for i = 1, select("#", ...) do
    local word = words[i]
    words[i] = type(word) == "number" and native.number_text(word) or tostring(word)
  end
  native.log(concat(words, "\t"))
end

return array, print
