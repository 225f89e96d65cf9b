-- Keeps LuaJIT's own `string.find` for what is no pattern and not too long: LuaJIT compiles it. And bounds what else of Lua's
-- library may take longer than anybody waits without an instruction of Lua at which it could be stopped.
--
-- Comes in: `find`, for everything else. Goes out: LuaJIT's own functions by their names, which stand behind the ones that replace
-- them here: `string.find`, `table.sort`, `table.insert` and `load`.

local find = ...

local error, load, pcall, select, tonumber, type = error, load, pcall, select, tonumber, type
local plain_find, concat, insert, sort = string.find, table.concat, table.insert, table.sort
local getinfo = debug.getinfo
local clear = require("table.clear")

-- LuaJIT's search takes time by the product of both lengths at worst: this much is some ten milliseconds.
local MOST = 2 ^ 26
-- A pattern longer than this one is not worth a place among those that are known.
local LONGEST = 64
local MOST_KNOWN = 256

-- By text: whether it is no pattern.
local known = {}
local count = 0

local function learn(text)
  if #text > LONGEST then return false end
  if count >= MOST_KNOWN then
    clear(known)
    count = 0
  end
  local is_plain = not find(text, "[%^%$%*%+%?%.%(%[%%%-]")
  known[text] = is_plain
  count = count + 1
  return is_plain
end

function string.find(text, pattern, init, plain)
  if type(text) == "string" and type(pattern) == "string" and #text * #pattern < MOST then
    local is_plain = plain
    if not is_plain then
      is_plain = known[pattern]
      if is_plain == nil then is_plain = learn(pattern) end
    end
    if is_plain then return plain_find(text, pattern, init, true) end
  end
  return find(text, pattern, init, plain)
end

-- Sorting takes time by the square of the length where somebody has chosen the order. A comparison in Lua can be stopped.
local FEW = 1000

local function is_less(a, b)
  return a < b
end

function table.sort(list, less)
  if type(list) == "table" and #list > FEW then
    if less == nil then
      less = is_less
    elseif type(less) == "function" and getinfo(less, "S").what == "C" then
      local compare = less
      less = function(a, b)
        local is = compare(a, b)
        return is
      end
    end
  end
  return sort(list, less)
end

-- All that `read` gives, one text after the other.
local function gather(read)
  local parts, n = {}, 0
  while true do
    local part = read()
    if part == nil or part == "" then return concat(parts) end
    if type(part) ~= "string" and type(part) ~= "number" then error("reader function must return a string", 0) end
    n = n + 1
    parts[n] = part
  end
end

-- A function that `load` calls is called before LuaJIT's compiler begins: an error that a hook raises within that leaves
-- LuaJIT believing that the hook still runs, and then nothing can be stopped any more.
function _G.load(code, name, ...)
  if type(code) == "function" then
    local ok, text = pcall(gather, code)
    if not ok then return nil, text end
    if name == nil then name = "=(load)" end
    return load(text, name, ...)
  end
  return load(code, name, ...)
end

-- LuaJIT moves everything from the place on, also where that is far below the first, and takes what is no `int` for one of
-- those.
function table.insert(list, ...)
  if select("#", ...) == 2 then
    local place = tonumber((...))
    if place and not (place >= -FEW and place < 2 ^ 31) then
      error("bad argument #2 to 'insert' (position out of bounds)", 2)
    end
  end
  return insert(list, ...)
end

return { ["string.find"] = plain_find, ["table.insert"] = insert, ["table.sort"] = sort, load = load }
