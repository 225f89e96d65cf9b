-- Responses as Lua values, and the builders that make them (`api.json`, `api.text`, …).
--
-- A response is an array that Rust reads in one go: [1] kind, [2] status, [3] value, [4] header names and values in
-- turn, [5] where the producer of a stream is written. Comes in: `native`, and `mistake`, which raises at the line of the
-- app. Goes out: the metatable, the builders, and `respond`, which turns anything that a handler may return into a response
-- for hooks to change.

local native, mistake = ...

local type, tostring, setmetatable, getmetatable, select = type, tostring, setmetatable, getmetatable, select
local lower, format, find, gsub, byte = string.lower, string.format, string.find, string.gsub, string.byte
local getinfo = debug.getinfo
local number_text = native.number_text

-- A value as text. `tostring` would round integers from 10^14 on.
local function text(value)
  if type(value) == "number" and (value >= 1e14 or value <= -1e14) then return number_text(value) end
  return tostring(value)
end
local MOST_FIELDS = native.most_fields

-- The kinds, as `response.rs` knows them.
local JSON, TEXT, HTML, RAW, EMPTY, UNTYPED_JSON, STREAM = 1, 2, 3, 4, 5, 6, 7

-- The Content-Type of a kind, and the kind without it.
local CONTENT_TYPE = { "application/json", "text/plain; charset=utf-8", "text/html; charset=utf-8" }
local UNTYPED = { UNTYPED_JSON, RAW, RAW }

-- The fields that a response has once, by the length of their names.
local ONCE = { [12] = "content-type", [14] = "content-length" }

local Response = {}
Response.__index = Response
Response.__name = "response"

local function new(kind, status, value)
  -- The place of the headers is made at once: adding it later would move the whole table.
  return setmetatable({ kind, status, value, false }, Response)
end

-- A wrong argument in a message: text in quotes, numbers as they are, everything else by its type.
local function shown(value)
  local kind = type(value)
  if kind == "string" then return format("%q", value) end
  if kind == "number" or kind == "nil" then return text(value) end
  return "a " .. kind
end

local function check_receiver(response, call)
  if getmetatable(response) ~= Response then mistake("call it with a colon: response:" .. call) end
end

local function check_status(status)
  if type(status) ~= "number" or status % 1 ~= 0 or status < 200 or status > 599 then
    mistake("a status is a whole number from 200 to 599, not " .. shown(status))
  end
  return status
end

local function check_header(name, value, is_stream)
  local kind = type(value)
  if kind == "number" or kind == "boolean" then
    value = text(value)
  elseif kind ~= "string" then
    mistake(format("the value of the header %s is a string, not a %s", tostring(name), kind))
  end
  local problem = native.header_problem(name, value, is_stream)
  if problem then mistake(problem) end
  return value
end

-- The headers without those called `name`, which is in lower case.
local function without(headers, name)
  local kept = {}
  for i = 1, headers and #headers or 0, 2 do
    if lower(headers[i]) ~= name then
      local n = #kept
      kept[n + 1], kept[n + 2] = headers[i], headers[i + 1]
    end
  end
  return kept
end

--- `res:status(code)` sets the status, `res:status()` reads it.
function Response:status(...)
  check_receiver(self, "status(code)")
  if select("#", ...) == 0 then return self[2] end
  self[2] = check_status((...))
  return self
end

-- `res:header(name)`: the first value, or nil.
local function read_header(response, name)
  local headers = response[4]
  for i = 1, headers and #headers or 0, 2 do
    if lower(headers[i]) == name then return headers[i + 1] end
  end
  if name == "content-type" then return CONTENT_TYPE[response[1]] end
end

--- `res:header(name, value)` adds, `res:header(name, nil)` removes, `res:header(name)` reads the first.
function Response:header(name, ...)
  check_receiver(self, "header(name, value)")
  local value = ...
  if value == nil then
    if type(name) ~= "string" then mistake("a header's name is a string, not " .. shown(name)) end
    local wanted = lower(name)
    if select("#", ...) == 0 then return read_header(self, wanted) end
    self[4] = without(self[4], wanted)
    if wanted == "content-type" then self[1] = UNTYPED[self[1]] or self[1] end
    return self
  end
  value = check_header(name, value, self[1] == STREAM)
  local headers = self[4]
  if headers and ONCE[#name] == lower(name) then
    headers = without(headers, ONCE[#name])
    self[4] = headers
  end
  if headers then
    local n = #headers
    if n >= 2 * MOST_FIELDS then mistake(format("the response has more than %d header fields", MOST_FIELDS)) end
    headers[n + 1], headers[n + 2] = name, value
  else
    self[4] = { name, value }
  end
  return self
end

--- `res:cookie(name, value, options)` adds a Set-Cookie header.
function Response:cookie(name, value, options)
  check_receiver(self, "cookie(name, value, options)")
  if type(value) == "number" then value = text(value) end
  local line, problem = native.set_cookie(name, value, options)
  if not line then mistake(problem) end
  return self:header("Set-Cookie", line)
end

local builders = {}

-- The text that a builder sends.
local function text_of(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" or kind == "boolean" then return text(value) end
  if native.is_body(value) then return tostring(value) end
  mistake("the text of a response is a string, not " .. shown(value))
end

function builders.json(value) return new(JSON, 200, value) end
builders["json.status"] = function(status, value) return new(JSON, check_status(status), value) end

for name, kind in pairs { text = TEXT, html = HTML, raw = RAW } do
  builders[name] = function(value) return new(kind, 200, text_of(value)) end
  builders[name .. ".status"] = function(status, value) return new(kind, check_status(status), text_of(value)) end
end

local function percent(char) return format("%%%02X", byte(char)) end

local function redirect(status, url)
  if type(url) ~= "string" then mistake("a redirect needs a URL as a string, not " .. shown(url)) end
  local response = new(EMPTY, status)
  -- What is no visible ASCII character goes as browsers send it.
  local target = find(url, "[^!-~]") and gsub(url, "[^!-~]", percent) or url
  response[4] = { "Location", target }
  return response
end

function builders.redirect(url) return redirect(302, url) end
builders["redirect.permanent"] = function(url) return redirect(301, url) end
builders["redirect.status"] = function(status, url)
  if type(status) ~= "number" or status % 1 ~= 0 or status < 300 or status > 399 then
    mistake("a redirect has a status from 300 to 399, not " .. shown(status))
  end
  return redirect(status, url)
end

function builders.no_content() return new(EMPTY, 204) end

function builders.error(status, message)
  check_status(status)
  local body = message
  if type(message) ~= "table" then
    body = { error = message == nil and native.reason(status) or text(message) }
  end
  return new(JSON, status, body)
end

local function check_producer(producer)
  if type(producer) ~= "function" then mistake("a producer is a function, not " .. shown(producer)) end
end

-- Where a producer is written: what errors of the stream are logged with.
local function place_of(producer)
  local info = getinfo(producer, "S")
  return format("%s:%d", info.short_src, info.linedefined)
end

local function stream(status, content_type, producer)
  check_status(status)
  if type(content_type) ~= "string" then mistake("a content type is a string, not " .. shown(content_type)) end
  check_producer(producer)
  local fields, place = { "Content-Type", check_header("Content-Type", content_type) }, place_of(producer)
  local response = new(STREAM, status, native.stream(producer, place, false))
  response[4], response[5] = fields, place
  return response
end

builders.stream = stream

function builders.stream_with_headers(status, content_type, headers, producer)
  if type(headers) ~= "table" then mistake("the headers of a stream are a table, not " .. shown(headers)) end
  local response = stream(status, content_type, producer)
  for name, value in pairs(headers) do response:header(name, value) end
  return response
end

local function sse(status, producer, retry)
  check_status(status)
  check_producer(producer)
  if retry ~= nil and (type(retry) ~= "number" or retry % 1 ~= 0 or retry < 1 or retry > 1e12) then
    mistake("retry is a whole number of milliseconds, not " .. shown(retry))
  end
  local response = new(STREAM, status, native.stream(producer, place_of(producer), true, retry))
  -- What would be collected or kept on the way would come late, or to others.
  response[4] = { "Content-Type", "text/event-stream", "Cache-Control", "no-cache", "X-Accel-Buffering", "no" }
  return response
end

function builders.sse(producer, retry) return sse(200, producer, retry) end
builders["sse.status"] = sse

-- The same response, as another one: what hooks add to it is for one request, while the response may be returned for many.
-- The value is shared, for nobody but its author can change it.
local function copy_of(response)
  local copy, headers = new(response[1], response[2], response[3]), response[4]
  if headers then
    local own = {}
    for i = 1, #headers do own[i] = headers[i] end
    copy[4] = own
  end
  -- A stream's place.
  if response[5] then copy[5] = response[5] end
  return copy
end

-- What a handler may return, as a response that belongs to this request alone.
local function respond(value)
  local kind = type(value)
  if kind == "table" then
    if getmetatable(value) == Response then return copy_of(value) end
    return new(JSON, 200, value)
  elseif kind == "nil" then
    return new(EMPTY, 204)
  elseif kind == "string" or kind == "number" or kind == "boolean" then
    return new(TEXT, 200, text(value))
  end
  return new(JSON, 200, value)
end

return Response, builders, respond
