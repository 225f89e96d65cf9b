-- `db:page(sql, { … })`: a part of a long answer, and where the next one begins. It goes on behind the last row's keys, so
-- that rows which come or go meanwhile neither repeat others nor hide them.
--
-- Comes in: `mistake`, which raises text at the line of the app, `encode` and `decode` of JSON, and `query` of the handle.

local mistake, encode, decode, query = ...

local byte, char, concat, find, format, gsub, match = string.byte, string.char, table.concat, string.find, string.format, string.gsub, string.match
local pairs, pcall, tonumber, type, unpack = pairs, pcall, tonumber, type, unpack

local OPTIONS = { by = true, desc = true, after = true, limit = true, args = true }
local MOST = 1000

-- A cursor is the keys of a row as JSON, written so that it can stand in a URL.
local function sealed(keys)
  return (gsub(encode(keys), ".", function(c) return format("%02x", byte(c)) end))
end

local function opened(cursor, count)
  if type(cursor) ~= "string" or #cursor % 2 ~= 0 or #cursor > 8192 or find(cursor, "[^%x]") then return nil end
  local text = gsub(cursor, "%x%x", function(hex) return char(tonumber(hex, 16)) end)
  local ok, keys = pcall(decode, text)
  if not ok or type(keys) ~= "table" or #keys ~= count then return nil end
  for n = 1, count do
    local kind = type(keys[n])
    if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then return nil end
  end
  return keys
end

local function quoted(name)
  return '"' .. gsub(name, '"', '""') .. '"'
end

return function(self, sql, options)
  options = options or {}
  if type(sql) ~= "string" then mistake("db:page expects SQL as a string, not " .. type(sql)) end
  if type(options) ~= "table" then mistake("db:page expects a table of options, not " .. type(options)) end
  for name in pairs(options) do
    if not OPTIONS[name] then
      mistake("db:page has no option " .. format("%q", tostring(name)) .. ": there are by, desc, after, limit and args")
    end
  end
  local by = options.by or "id"
  if type(by) == "string" then by = { by } end
  if type(by) ~= "table" or #by == 0 then mistake("db:page: by must be a column, or a table of columns") end
  local names = {}
  for n = 1, #by do
    if type(by[n]) ~= "string" then mistake("db:page: by must be a column, or a table of columns") end
    names[n] = quoted(by[n])
  end
  local limit = options.limit or 20
  if type(limit) ~= "number" or limit % 1 ~= 0 or limit < 1 or limit > MOST then
    mistake("db:page: limit must be a whole number from 1 to " .. MOST)
  end
  local args = options.args or {}
  if type(args) ~= "table" then mistake("db:page: args must be a table of values") end
  local after
  if options.after ~= nil and options.after ~= "" then
    after = opened(options.after, #by)
    if not after then return nil, "invalid cursor" end
  end

  local list, order = concat(names, ", "), options.desc and " desc" or ""
  local has_names = next(args) ~= nil and #args == 0
  local values, places = {}, {}
  for name, value in pairs(args) do values[name] = value end
  local count = #args
  local function place(value)
    count = count + 1
    if not has_names then
      values[count] = value
      return "?"
    end
    local name = "rover_page_" .. count
    values[name] = value
    return ":" .. name
  end
  local parts = { "select * from (", (gsub(sql, "[;%s]+$", "")), "\n) as page" }
  if after then
    for n = 1, #by do places[n] = place(after[n]) end
    parts[#parts + 1] = " where (" .. list .. (options.desc and ") < (" or ") > (") .. concat(places, ", ") .. ")"
  end
  for n = 1, #names do names[n] = names[n] .. order end
  parts[#parts + 1] = " order by " .. concat(names, ", ") .. " limit " .. place(limit + 1)

  local rows, err, info
  if has_names then
    rows, err, info = query(self, concat(parts), values)
  else
    rows, err, info = query(self, concat(parts), unpack(values, 1, count))
  end
  if not rows then return nil, err, info end
  if #rows <= limit then return rows end
  rows[limit + 1] = nil
  local keys, last = {}, rows[limit]
  for n = 1, #by do
    keys[n] = last[by[n]]
    if keys[n] == nil then
      mistake("db:page: the rows have no " .. by[n] .. ", or NULL in it: by needs columns that tell rows apart")
    end
  end
  return rows, sealed(keys)
end
