-- `rover.http`: checks what an app asks for, and turns it into one call of `send`.
--
-- Comes in: `native`, functions that Rust lends; `encode`, which makes JSON; `mistake`, which raises at the line of the app;
-- `times`, which reads times. Goes out: the table `rover.http`.

local native, encode, mistake, times = ...

local ipairs, pairs, tonumber, tostring, type = ipairs, pairs, tonumber, tostring, type
local byte, find, format, gsub, lower, match, upper =
  string.byte, string.find, string.format, string.gsub, string.lower, string.match, string.upper
local concat, sort, floor = table.concat, table.sort, math.floor
local number_text = native.number_text
local send, new_client, stats, is_text, random = native.send, native.client, native.stats, native.is_text, native.random

-- A value in a message: text in quotes, numbers and truths as they are, everything else by its type.
local function shown(value)
  local kind = type(value)
  if kind == "string" then return format("%q", value) end
  if kind == "table" or kind == "function" or kind == "userdata" then return "a " .. kind end
  return tostring(value)
end

local function wrong(name, wanted, value)
  mistake(format("%s is %s, not %s", name, wanted, shown(value)))
end

-- The sorted names of a table of checks.
local function names_of(checks)
  local names = {}
  for name in pairs(checks) do names[#names + 1] = name end
  sort(names)
  return concat(names, ", ")
end

-- Checks every key of `given`; `what` names the table in messages.
local function check_all(given, checks, what)
  for key, value in pairs(given) do
    local check = checks[key]
    if not check then
      mistake(format("unknown key %s in %s; the keys are %s", shown(key), what, names_of(checks)))
    end
    check(value, type(key) == "string" and key or tostring(key))
  end
  return given
end

local checks = {}

function checks.truth(value, name)
  if type(value) ~= "boolean" then wrong(name, "true or false", value) end
end

function checks.text(value, name)
  if type(value) ~= "string" then wrong(name, "a string", value) end
end

function checks.table(value, name)
  if type(value) ~= "table" then wrong(name, "a table", value) end
end

function checks.anything() end

checks.milliseconds = times.milliseconds

-- A whole number from `least` on.
local function count_from(least)
  return function(value, name)
    if type(value) ~= "number" or value % 1 ~= 0 or value < least or value > 1e9 then
      wrong(name, "a whole number from " .. least, value)
    end
  end
end

-- As the config of the server has them.
local UNITS = { [""] = 1, b = 1 }
for unit, factor in pairs { k = 1024, m = 1024 ^ 2, g = 1024 ^ 3 } do
  UNITS[unit], UNITS[unit .. "b"], UNITS[unit .. "ib"] = factor, factor, factor
end

-- Bytes, as a number or as text such as "64MB".
local function size(value, name)
  if type(value) == "string" then
    local number, unit = match(value, "^%s*(%d*%.?%d+)%s*(%a*)%s*$")
    local factor = UNITS[lower(unit or "?")]
    if factor then return floor(tonumber(number) * factor) end
  elseif type(value) == "number" and value >= 0 and value % 1 == 0 and value <= 2 ^ 53 then
    return value
  end
  wrong(name, 'a size: a number of bytes, or text such as "64MB"', value)
end

local RETRY = { attempts = count_from(1), backoff_ms = checks.milliseconds, max_backoff_ms = checks.milliseconds }

function checks.retry(value, name)
  if type(value) == "boolean" then return end
  if type(value) == "number" then return RETRY.attempts(value, name) end
  if type(value) ~= "table" then wrong(name, "true, false, a number of attempts, or a table", value) end
  check_all(value, RETRY, name)
end

function checks.redirects(value, name)
  if value ~= false then count_from(0)(value, name .. " (or false)") end
end

-- What a call may say.
local CALL = {
  headers = checks.table, params = checks.table, timeout = times.seconds, timeout_ms = times.milliseconds,
  connect_timeout = times.seconds, connect_timeout_ms = times.milliseconds, json = checks.anything, body = checks.anything, form = checks.table, multipart = checks.table, retry = checks.retry,
  redirects = checks.redirects, stream = checks.truth, body_size_limit = size,
}

-- What `request` may say besides.
local REQUEST = { method = checks.text, url = checks.text }
for key, check in pairs(CALL) do REQUEST[key] = check end

local TLS = { ca = checks.text, cert = checks.text, key = checks.text, insecure = checks.truth }
local BREAKER = {
  failures = count_from(1), window_ms = checks.milliseconds, open_ms = checks.milliseconds, trials = count_from(1),
}
local LIMIT = { concurrent = count_from(1), queue = count_from(0) }
local POOL = { idle = count_from(0), idle_timeout_ms = checks.milliseconds }

-- A table of settings, or `true` for its defaults.
local function settings(inner)
  return function(value, name)
    if type(value) == "boolean" then return end
    if type(value) ~= "table" then wrong(name, "true, false or a table", value) end
    check_all(value, inner, name)
  end
end

-- What `create` may say besides.
local CREATE = {
  name = checks.text, base_url = checks.text, tls = settings(TLS), breaker = settings(BREAKER), limit = settings(LIMIT),
  pool = settings(POOL),
}
for _, key in ipairs {
  "headers", "params", "timeout", "timeout_ms", "connect_timeout", "connect_timeout_ms", "retry", "redirects", "body_size_limit",
} do
  CREATE[key] = CALL[key]
end

local function percent(char) return format("%%%02X", byte(char)) end

local function escaped(text) return (gsub(text, "[^%w%-%._~]", percent)) end

local function form_escaped(text) return (gsub(gsub(text, "[^%w%-%._* ]", percent), " ", "+")) end

-- A field's value as text; nil where it should be left out.
local function text_of(value, name)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return number_text(value) end
  if kind == "boolean" then return tostring(value) end
  if is_text(value) then return tostring(value) end
  wrong(name, "a string, number or boolean, or an array of them", value)
end

-- Calls `add` with each item of an array, as text. What is no array would lose what is not in its places 1, 2, 3, and so on.
local function for_each_item(list, what, add, name)
  local n = 0
  for key in pairs(list) do
    n = n + 1
    if type(key) ~= "number" then
      mistake(format("%s is a table with the key %s; a field takes a string, number or boolean, or an array of them", what, shown(key)))
    end
  end
  for place = 1, n do
    local item = list[place]
    if item == nil then mistake(format("%s is an array with a gap at %d", what, place)) end
    add(name, text_of(item, format("%s[%d]", what, place)))
  end
end

-- Names and values in the order of names, a name for each item of an array.
local function each(fields, what, add)
  local names = {}
  for name in pairs(fields) do
    if type(name) ~= "string" then mistake(what .. " are named by strings, not " .. shown(name)) end
    names[#names + 1] = name
  end
  sort(names)
  for _, name in ipairs(names) do
    local value = fields[name]
    if type(value) == "table" then
      for_each_item(value, what .. "." .. name, add, name)
    else
      add(name, text_of(value, what .. "." .. name))
    end
  end
end

local function encoded(fields, what, escape)
  local parts = {}
  each(fields, what, function(name, value) parts[#parts + 1] = escape(name) .. "=" .. escape(value) end)
  return concat(parts, "&")
end

local function with_params(url, params)
  local query = encoded(params, "params", escaped)
  if query == "" then return url end
  url = gsub(url, "#.*$", "")
  return url .. (find(url, "?", 1, true) and "&" or "?") .. query
end

local PART = { name = checks.text, filename = checks.text, content_type = checks.text, content = checks.anything }

-- A name within a Content-Disposition, as browsers write it.
local function quoted(text)
  return '"' .. gsub(text, '[\r\n"]', percent) .. '"'
end

local function multipart(parts)
  local boundary = "rover-" .. random()
  local out = {}
  local function add(name, part)
    if type(part) ~= "table" then part = { content = text_of(part, "multipart." .. name) } end
    check_all(part, PART, "multipart." .. name)
    if part.content == nil then mistake("multipart." .. name .. " has no content") end
    local content = text_of(part.content, "multipart." .. name .. ".content")
    local head = "--" .. boundary .. "\r\nContent-Disposition: form-data; name=" .. quoted(name)
    if part.filename then head = head .. "; filename=" .. quoted(part.filename) end
    local kind = part.content_type or part.filename and "application/octet-stream"
    if kind then
      if find(kind, "[%c]") then wrong("multipart." .. name .. ".content_type", "a media type", kind) end
      head = head .. "\r\nContent-Type: " .. kind
    end
    out[#out + 1] = head .. "\r\n\r\n" .. content .. "\r\n"
  end
  local names = {}
  local numbered = 0
  for name in pairs(parts) do
    if type(name) == "string" then
      names[#names + 1] = name
    elseif type(name) == "number" then
      numbered = numbered + 1
    else
      mistake("the parts of multipart are named by strings, not " .. shown(name))
    end
  end
  for place = 1, numbered do
    if parts[place] == nil then mistake("multipart is an array with a gap at " .. place) end
  end
  sort(names)
  for _, part in ipairs(parts) do
    if type(part) ~= "table" or type(part.name) ~= "string" then mistake("a part of multipart needs a name") end
    add(part.name, part)
  end
  for _, name in ipairs(names) do add(name, parts[name]) end
  out[#out + 1] = "--" .. boundary .. "--\r\n"
  return concat(out), "multipart/form-data; boundary=" .. boundary
end

-- The bytes (or function) to send and their media type. `data` is the second argument of `post` and its siblings.
local function body_of(cfg, data, call)
  local json, body, form, parts = cfg.json, cfg.body, cfg.form, cfg.multipart
  local n = (json ~= nil and 1 or 0) + (body ~= nil and 1 or 0) + (form and 1 or 0) + (parts and 1 or 0)
  if data ~= nil then
    n = n + 1
    if type(data) == "table" then json = data else body = data end
  end
  if n > 1 then mistake(call .. " has more than one body: give the data, json, body, form or multipart") end
  if json ~= nil then return encode(json), "application/json" end
  if form then return encoded(form, "form", form_escaped), "application/x-www-form-urlencoded" end
  if parts then return multipart(parts) end
  if body == nil or type(body) == "string" or type(body) == "function" then return body end
  if is_text(body) then return tostring(body) end
  if type(body) == "number" then return number_text(body) end
  if type(body) == "boolean" then return tostring(body) end
  wrong("the body of " .. call, "a string or a function that returns chunks", body)
end

-- Adds the fields of `headers` to `list`, except those that `known` has already.
local function add_headers(list, known, headers)
  local own = {}
  local function add_to(name, text) list[#list + 1], list[#list + 2] = name, text end
  for name, value in pairs(headers) do
    if type(name) ~= "string" then mistake("headers are named by strings, not " .. shown(name)) end
    local plain = lower(name)
    if not known[plain] then
      own[plain] = true
      if type(value) == "table" then
        for_each_item(value, "headers." .. name, add_to, name)
      elseif value ~= false then
        list[#list + 1], list[#list + 2] = name, text_of(value, "headers." .. name)
      end
    end
  end
  for name in pairs(own) do known[name] = true end
end

local time = times.of

local ATTEMPTS, BACKOFF, MAX_BACKOFF = 3, 100, 2000
-- Milliseconds and bytes.
local TIMEOUT, CONNECT_TIMEOUT, REDIRECTS, BODY_SIZE_LIMIT = 30000, 10000, 10, 64 * 1024 ^ 2
local NONE = {}

-- The first that is given.
local function first(a, b, default)
  if a ~= nil then return a end
  if b ~= nil then return b end
  return default
end

local function perform(client, method, url, data, cfg, call)
  local defaults = client.defaults
  if type(url) ~= "string" then mistake(call .. " needs a URL as a string, not " .. shown(url)) end
  if client.base_url and not match(url, "^%a[%w+.-]*:") then
    if find(url, "?", 1, true) == 1 then
      url = client.base_url .. url
    else
      url = gsub(client.base_url, "/$", "") .. (match(url, "^/") and "" or "/") .. url
    end
  end
  local body, kind = body_of(cfg, data, call)
  local headers, known = {}, {}
  if cfg.headers then add_headers(headers, known, cfg.headers) end
  if kind and not known["content-type"] then
    headers[#headers + 1], headers[#headers + 2] = "Content-Type", kind
    known["content-type"] = true
  end
  if defaults.headers then add_headers(headers, known, defaults.headers) end
  if defaults.params then
    local params = {}
    for name, value in pairs(defaults.params) do
      if not cfg.params or cfg.params[name] == nil then params[name] = value end
    end
    url = with_params(url, params)
  end
  if cfg.params then url = with_params(url, cfg.params) end
  local retry = first(cfg.retry, defaults.retry, false)
  local attempts, backoff, max_backoff = 1, BACKOFF, MAX_BACKOFF
  if type(retry) == "number" then
    attempts = retry
  elseif type(retry) == "table" then
    attempts = retry.attempts or ATTEMPTS
    backoff = first(retry.backoff_ms, nil, BACKOFF) or 0
    max_backoff = first(retry.max_backoff_ms, nil, MAX_BACKOFF) or 1e9
  elseif retry then
    attempts = ATTEMPTS
  end
  local limit = first(cfg.body_size_limit, defaults.body_size_limit, BODY_SIZE_LIMIT)
  return send(client.native, method, url, headers, body,
    time(cfg, "timeout", "timeout_ms") or time(defaults, "timeout", "timeout_ms") or TIMEOUT,
    time(cfg, "connect_timeout", "connect_timeout_ms") or time(defaults, "connect_timeout", "connect_timeout_ms")
      or CONNECT_TIMEOUT,
    first(cfg.redirects, defaults.redirects, REDIRECTS) or 0,
    attempts, backoff, max_backoff, cfg.stream or false, size(limit, "body_size_limit"), call)
end

-- The same table, where each time is given in one unit.
local function with_one_unit(cfg)
  times.once(cfg, "timeout", "timeout_ms")
  times.once(cfg, "connect_timeout", "connect_timeout_ms")
  return cfg
end

local function check_config(cfg, call, checks)
  if cfg == nil then return NONE end
  if type(cfg) ~= "table" then mistake(format("the config of %s is a table, not %s", call, shown(cfg))) end
  check_all(cfg, checks or CALL, "the config of " .. call)
  return with_one_unit(cfg)
end

-- The functions of one client. `prefix` is how messages call it.
local function functions(client, prefix)
  local http = {}
  -- `client.get(url)` and `client:get(url)` are the same.
  local function plain(method)
    local call = prefix .. lower(method)
    return function(a, b, c)
      if a == http then a, b = b, c end
      return perform(client, method, a, nil, check_config(b, call), call)
    end
  end
  local function with_data(method)
    local call = prefix .. lower(method)
    return function(a, b, c, d)
      if a == http then a, b, c = b, c, d end
      return perform(client, method, a, b, check_config(c, call), call)
    end
  end
  for _, method in ipairs { "GET", "HEAD", "OPTIONS", "DELETE" } do http[lower(method)] = plain(method) end
  for _, method in ipairs { "POST", "PUT", "PATCH" } do http[lower(method)] = with_data(method) end
  function http.request(a, b)
    if a == http then a = b end
    if a == nil then mistake(prefix .. "request needs a table with a url") end
    local cfg = check_config(a, prefix .. "request", REQUEST)
    return perform(client, upper(cfg.method or "GET"), cfg.url, nil, cfg, prefix .. "request")
  end
  return http
end

local function on(value) return value == true and NONE or value or nil end

local clients = 0

local function create(defaults)
  if defaults == nil then defaults = {} end
  if type(defaults) ~= "table" then mistake("rover.http.create expects a table, not " .. shown(defaults)) end
  with_one_unit(check_all(defaults, CREATE, "the config of rover.http.create"))
  clients = clients + 1
  local tls, breaker, limit, pool =
    on(defaults.tls) or NONE, on(defaults.breaker), on(defaults.limit), on(defaults.pool) or NONE
  if (tls.cert == nil) ~= (tls.key == nil) then mistake("tls needs both cert and key, or neither") end
  -- The defaults are copied, for the app may go on to use its table.
  local kept = {}
  for key, value in pairs(defaults) do kept[key] = value end
  local client = { defaults = kept, base_url = kept.base_url }
  local name = kept.name or "client-" .. clients
  client.native = new_client(name, tls.ca, tls.cert, tls.key, tls.insecure or false,
    breaker and (breaker.failures or 5) or 0, breaker and (breaker.window_ms or 10000) or 0,
    breaker and (breaker.open_ms or 5000) or 0, breaker and (breaker.trials or 1) or 0,
    limit and (limit.concurrent or 100) or 0, limit and (limit.queue or 100) or 0,
    pool.idle or 128, first(pool.idle_timeout_ms, nil, 60000) or 1e9)
  local http = functions(client, "client.")
  function http.stats() return stats(client.native) end
  return http
end

local http = functions({ defaults = {}, native = native.default }, "rover.http.")
http.create = create
function http.stats() return stats() end

return http
