-- `ctx:proxy` and `api.proxy`: checks where a request should go, and hands it on.
--
-- Comes in: `native`, functions that Rust lends; `mistake`, which raises at the line of the app; `times`, which reads times.
-- Goes out: the method, the builder, and the table of the handlers that the builder made.

local native, mistake, times = ...

local ipairs, pairs, setmetatable, tostring, type = ipairs, pairs, setmetatable, tostring, type
local concat, sort, format, lower = table.concat, table.sort, string.format, string.lower
local forward, new_group, time = native.forward, native.group, times.of

local function shown(value)
  local kind = type(value)
  if kind == "string" then return format("%q", value) end
  if kind == "number" or kind == "boolean" or kind == "nil" then return tostring(value) end
  return "a " .. kind
end

local function wrong(name, wanted, value)
  mistake(format("%s is %s, not %s", name, wanted, shown(value)))
end

-- One of these texts, or false where that may be said.
local function one_of(...)
  local known, list = {}, { ... }
  for i, text in ipairs(list) do
    known[text] = true
    list[i] = shown(text)
  end
  local wanted = concat(list, " or ")
  return function(value, name)
    if not known[value] then wrong(name, wanted, value) end
  end
end

local function truth(value, name)
  if type(value) ~= "boolean" then wrong(name, "true or false", value) end
end

local function headers(value, name)
  if type(value) ~= "table" then wrong(name, "a table", value) end
  for key, item in pairs(value) do
    if type(key) ~= "string" then wrong("the name of a header", "a string", key) end
    if item ~= false and type(item) ~= "string" and type(item) ~= "number" then
      wrong("headers." .. key, "a string, or false to leave the header out", item)
    end
  end
end

-- Those that `forwarded` decides about.
local WRITTEN = { forwarded = true, ["x-forwarded-for"] = true, ["x-forwarded-proto"] = true, ["x-forwarded-host"] = true }

local function names(value, name)
  if type(value) ~= "table" then wrong(name, "an array of names", value) end
  for key in pairs(value) do
    if type(key) ~= "number" then wrong(name, "an array of names", value) end
  end
  for i, item in ipairs(value) do
    if type(item) ~= "string" then wrong(format("%s[%d]", name, i), "the name of a header", item) end
    if WRITTEN[lower(item)] then
      mistake(format('%s cannot keep %s: forwarded = "append" does', name, item))
    end
  end
end

local function fails(value, name)
  if value == false then return end
  if type(value) ~= "number" or value % 1 ~= 0 or value < 1 or value > 1e6 then
    wrong(name, "a whole number from 1, or false", value)
  end
end

local TLS = { ca = true, cert = true, key = true, insecure = true }

local function tls(value, name)
  if type(value) ~= "table" then wrong(name, "a table", value) end
  for key, item in pairs(value) do
    if not TLS[key] then mistake(format("unknown key %s in %s; the keys are ca, cert, insecure, key", shown(key), name)) end
    local path = name .. "." .. key
    if key == "insecure" then
      truth(item, path)
    elseif type(item) ~= "string" then
      wrong(path, "the path of a file in PEM", item)
    end
  end
  if (value.cert == nil) ~= (value.key == nil) then mistake(name .. " needs both cert and key, or neither") end
end

local CONFIG = {
  host = one_of("upstream", "preserve"), forwarded = one_of("replace", "append", false), via = truth, headers = headers,
  keep_headers = names, balance = one_of("round_robin", "least_connections"), fails = fails,
  tls = tls,
}

local TIMES = {}
for _, name in ipairs { "timeout", "connect_timeout", "idle_timeout", "tunnel_timeout", "fail_timeout" } do
  TIMES[name] = name .. "_ms"
  CONFIG[name], CONFIG[TIMES[name]] = times.seconds, times.milliseconds
end

local known = {}
for name in pairs(CONFIG) do known[#known + 1] = name end
sort(known)

local function check(cfg, call)
  if type(cfg) ~= "table" then mistake(format("the config of %s is a table, not %s", call, shown(cfg))) end
  for key, value in pairs(cfg) do
    local test = CONFIG[key]
    if not test then
      mistake(format("unknown key %s in the config of %s; the keys are %s", shown(key), call, concat(known, ", ")))
    end
    test(value, key)
  end
  for name, name_ms in pairs(TIMES) do times.once(cfg, name, name_ms) end
end

-- Groups of upstreams by what they were made of, so that their health and whose turn it is outlive a request. What makes
-- new ones without end loses the old ones.
local groups, count = {}, 0
local MOST = 1000
local NONE = {}

local function group_of(target, cfg, call)
  local balance, most, fail_time = cfg.balance or "round_robin", cfg.fails or 3, time(cfg, "fail_timeout", "fail_timeout_ms")
  -- However often it fails, an upstream then is never left out.
  if cfg.fails == false then fail_time = 0 end
  local tls = cfg.tls or NONE
  local urls = target
  if type(target) == "string" then
    urls = nil
  elseif type(target) ~= "table" or #target == 0 then
    mistake(format("%s needs a URL, or an array of them, not %s", call, type(target) == "table" and "an empty table" or shown(target)))
  else
    for i, url in ipairs(target) do
      if type(url) ~= "string" then wrong("upstream " .. i, "a URL as a string", url) end
    end
  end
  local plain = target
  if urls or cfg.balance or cfg.fails or fail_time or cfg.tls then
    plain = concat({
      balance, most, tostring(fail_time), tls.ca or "", tls.cert or "", tls.key or "", tostring(tls.insecure),
      urls and concat(urls, " ") or target,
    }, "\0")
  end
  local group = groups[plain]
  if not group then
    if count >= MOST then groups, count = {}, 0 end
    group = new_group(balance == "least_connections", most, fail_time or 10000, urls or { target }, tls.ca, tls.cert, tls.key,
      tls.insecure or false)
    groups[plain] = group
    count = count + 1
  end
  return group
end

local function go(ctx, group, cfg)
  return forward(ctx, group, time(cfg, "timeout", "timeout_ms") or 30000,
    time(cfg, "connect_timeout", "connect_timeout_ms") or 10000, time(cfg, "idle_timeout", "idle_timeout_ms") or 60000,
    cfg.host == "preserve", cfg.forwarded == nil and "replace" or cfg.forwarded, cfg.via or false, cfg.headers,
    time(cfg, "tunnel_timeout", "tunnel_timeout_ms") or 3600000, cfg.keep_headers)
end

--- `ctx:proxy(url[, cfg])` → a response.
local function method(ctx, target, cfg)
  if cfg == nil then
    local group = groups[target]
    if group then return go(ctx, group, NONE) end
    cfg = NONE
  else
    check(cfg, "ctx:proxy")
  end
  return go(ctx, group_of(target, cfg, "ctx:proxy"), cfg)
end

local proxies = setmetatable({}, { __mode = "k" })

--- `api.proxy(url[, cfg])` → a handler, whose requests keep their bodies unread.
local function builder(target, cfg)
  if cfg == nil then cfg = NONE else check(cfg, "api.proxy") end
  -- Checked and copied now, so that a mistake shows when the app loads.
  local copy = {}
  for key, value in pairs(cfg) do copy[key] = value end
  local group = group_of(target, cfg, "api.proxy")
  local function handler(ctx) return go(ctx, group, copy) end
  proxies[handler] = true
  return handler
end

return method, builder, proxies
