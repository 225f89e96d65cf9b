-- Responses as Lua values, and the builders that make them (`api.json`, `api.text`, …).
--
-- A response is an array that Rust reads in one go: [1] kind, [2] status, [3] value, [4] header names and values in
-- turn. Comes in: `native`. Goes out: the metatable, the builders, and `respond`, which turns anything that a handler
-- may return into a response.

local native = ...

local error, type, tostring, setmetatable, getmetatable, select = error, type, tostring, setmetatable, getmetatable, select
local lower, format = string.lower, string.format

-- The kinds, as `response.rs` knows them.
local JSON, TEXT, HTML, RAW, EMPTY = 1, 2, 3, 4, 5

local Response = {}
Response.__index = Response
Response.__name = "response"

local function new(kind, status, value)
  -- The place of the headers is made at once: adding it later would move the whole table.
  return setmetatable({ kind, status, value, false }, Response)
end

local function check_status(status, level)
  if type(status) ~= "number" or status % 1 ~= 0 or status < 200 or status > 599 then
    error(format("a status is a whole number from 200 to 599, not %s", tostring(status)), level + 1)
  end
  return status
end

local function check_header(name, value, level)
  local kind = type(value)
  if kind == "number" or kind == "boolean" then
    value = tostring(value)
  elseif kind ~= "string" then
    error(format("the value of the header %s is a string, not a %s", tostring(name), kind), level + 1)
  end
  local problem = native.header_problem(name, value)
  if problem then error(problem, level + 1) end
  return value
end

--- `res:status(code)` sets the status, `res:status()` reads it.
function Response:status(...)
  if select("#", ...) == 0 then return self[2] end
  self[2] = check_status((...), 2)
  return self
end

--- `res:header(name, value)` adds, `res:header(name, nil)` removes, `res:header(name)` reads the first.
function Response:header(name, ...)
  local headers = self[4]
  local reads = select("#", ...) == 0
  local value = ...
  if not reads and value ~= nil then
    value = check_header(name, value, 2)
    if headers then
      local n = #headers
      headers[n + 1], headers[n + 2] = name, value
    else
      self[4] = { name, value }
    end
    return self
  end
  local wanted, kept = lower(tostring(name)), {}
  for i = 1, headers and #headers or 0, 2 do
    if lower(headers[i]) ~= wanted then
      kept[#kept + 1], kept[#kept + 2] = headers[i], headers[i + 1]
    elseif reads then
      return headers[i + 1]
    end
  end
  if reads then return nil end
  self[4] = kept
  return self
end

--- `res:cookie(name, value, options)` adds a Set-Cookie header.
function Response:cookie(name, value, options)
  local line, problem = native.set_cookie(name, value, options)
  if not line then error(problem, 2) end
  return self:header("Set-Cookie", line)
end

local builders = {}

local function with_status(kind, check)
  return function(status, value)
    check_status(status, 2)
    if check then value = check(value, 2) end
    return new(kind, status, value)
  end
end

local function text_of(value, level)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" or kind == "boolean" then return tostring(value) end
  if native.is_body(value) then return tostring(value) end
  error(format("expected a string, got %s", value == nil and "nil" or "a " .. kind), level + 1)
end

function builders.json(value) return new(JSON, 200, value) end
builders["json.status"] = with_status(JSON)

function builders.text(value) return new(TEXT, 200, text_of(value, 2)) end
builders["text.status"] = with_status(TEXT, text_of)

function builders.html(value) return new(HTML, 200, text_of(value, 2)) end
builders["html.status"] = with_status(HTML, text_of)

function builders.raw(value) return new(RAW, 200, text_of(value, 2)) end
builders["raw.status"] = with_status(RAW, text_of)

local function redirect(status, url, level)
  if type(url) ~= "string" then
    error("a redirect needs a URL as a string, got a " .. type(url), level + 1)
  end
  local response = new(EMPTY, status)
  response[4] = { "Location", check_header("Location", url, level + 1) }
  return response
end

function builders.redirect(url) return (redirect(302, url, 2)) end
builders["redirect.permanent"] = function(url) return (redirect(301, url, 2)) end
builders["redirect.status"] = function(status, url)
  check_status(status, 2)
  if status < 300 or status > 399 then
    error("a redirect has a status from 300 to 399, not " .. status, 2)
  end
  return (redirect(status, url, 2))
end

function builders.no_content() return new(EMPTY, 204) end

function builders.error(status, message)
  check_status(status, 2)
  local body = message
  if type(message) ~= "table" then
    body = { error = message == nil and native.reason(status) or tostring(message) }
  end
  return new(JSON, status, body)
end

-- What a handler may return, as a response.
local function respond(value)
  local kind = type(value)
  if kind == "table" then
    if getmetatable(value) == Response then return value end
    return new(JSON, 200, value)
  elseif kind == "nil" then
    return new(EMPTY, 204)
  elseif kind == "string" or kind == "number" or kind == "boolean" then
    return new(TEXT, 200, tostring(value))
  end
  return new(JSON, 200, value)
end

return Response, builders, respond
