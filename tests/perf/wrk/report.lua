-- Loaded by every script here: prints one line of JSON when the run ends.
-- With PERF_STATUSES=1 in the environment every answer's status is counted one by one; wrk then parses each
-- answer's headers for Lua, which slows it down, so a timed run goes without and only counts those above 399.

local threads = {}
statuses = {}

function setup(thread) threads[#threads + 1] = thread end

if os.getenv("PERF_STATUSES") == "1" then
  function response(status)
    local key = tostring(status)
    statuses[key] = (statuses[key] or 0) + 1
  end
end

local function object(fields)
  local keys = {}
  for key in pairs(fields) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do
    local value = fields[key]
    if type(value) == "table" then value = object(value) else value = string.format("%.14g", value) end
    keys[i] = string.format("%q:%s", key, value)
  end
  return "{" .. table.concat(keys, ",") .. "}"
end

function done(summary, latency)
  local by_status = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      by_status[status] = (by_status[status] or 0) + count
    end
  end
  local micros = { min = latency.min, max = latency.max, mean = latency.mean, stdev = latency.stdev }
  for _, p in ipairs { 50, 90, 99, 99.9, 99.99 } do micros["p" .. p] = latency:percentile(p) end
  print(object {
    requests = summary.requests,
    duration_us = summary.duration,
    bytes = summary.bytes,
    latency_us = micros,
    errors = summary.errors,
    statuses = by_status,
  })
end

-- `pipelined(16, "/json")`: every write carries that many requests. wrk's latency is then that of the whole batch.
function pipelined(depth, path)
  local batch
  function init()
    batch = string.rep(wrk.format("GET", path), depth)
  end
  function request() return batch end
end

-- `post("/echo", body)`
function post(path, body)
  wrk.method, wrk.path, wrk.body = "POST", path, body
  wrk.headers["Content-Type"] = "application/json"
end

-- The text of a file beside the scripts.
function beside(name)
  local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
  local file = assert(io.open(here .. name, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end
