-- Keeps LuaJIT's own `string.find` for what is no pattern and not too long: LuaJIT compiles it. And bounds what else of Lua's
-- library may take longer than anybody waits without an instruction of Lua at which it could be stopped.
--
-- Comes in: `find`, for everything else. Goes out: LuaJIT's own functions by their names, which stand behind the ones that replace
-- them here: `string.find`, `table.sort`, `table.insert`, `load` and `loadstring`.

local find = ...

local error, load, loadstring, select, tonumber, type = error, load, loadstring, select, tonumber, type
local plain_find, sub, insert, sort, getinfo = string.find, string.sub, table.insert, table.sort, debug.getinfo
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

-- LuaJIT compiles in one go what it has been given: some chains of operators take time by the square of their length. So it
-- gets long texts in pieces, from a function in Lua, which can be stopped.
local PIECE = 4096

-- As `read`, which gives one text after the other, but none longer than a piece.
local function in_pieces(read)
  local text, at
  return function()
    if not text then
      local whole = read()
      if type(whole) ~= "string" or #whole <= PIECE then return whole end
      text, at = whole, 1
    end
    local piece = sub(text, at, at + PIECE - 1)
    at = at + PIECE
    if at > #text then text = nil end
    return piece
  end
end

-- Gives the text, and then nothing.
local function once(text)
  return function()
    local whole = text
    text = nil
    return whole
  end
end

function _G.load(code, name, ...)
  if type(code) == "string" and #code > 4 * PIECE then
    return load(in_pieces(once(code)), name == nil and code or name, ...)
  end
  if type(code) == "function" then return load(in_pieces(code), name, ...) end
  return load(code, name, ...)
end

function _G.loadstring(code, name, ...)
  if type(code) == "string" and #code > 4 * PIECE then
    return load(in_pieces(once(code)), name == nil and code or name, ...)
  end
  return loadstring(code, name, ...)
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

return {
  ["string.find"] = plain_find,
  ["table.insert"] = insert,
  ["table.sort"] = sort,
  load = load,
  loadstring = loadstring,
}
