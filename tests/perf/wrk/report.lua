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

-- wrk adds samples that nobody measured: a wait of n mean intervals puts n-1 shorter ones beside it. With pipelining
-- it takes the interval sixteen times too short, and its percentiles become nonsense (0 µs). Here those samples are
-- taken out again, from the longest down, as wrk put them in from the shortest up. What is left are the latencies of
-- a closed loop, each measured once: a server that stalls is asked less often meanwhile.
local function connections()
  local n = 10
  local file = assert(io.open("/proc/self/cmdline", "rb"))
  local previous
  for argument in file:read("*a"):gmatch("%Z+") do
    if argument == "--" then break end
    n = tonumber(argument:match("^%-c(%d+)$") or argument:match("^%-%-connections=(%d+)$")) or n
    if previous == "-c" or previous == "--connections" then n = tonumber(argument) or n end
    previous = argument
  end
  file:close()
  return n
end

local function measured(latency, summary)
  local values, counts = {}, {}
  for i = 1, #latency do
    local value, count = latency(i)
    values[i], counts[value] = value, count
  end
  local each = math.floor(summary.requests / connections())
  if each == 0 then return values, counts end
  local interval = math.floor(summary.duration / each)
  for i = #values, 1, -1 do
    local value = values[i]
    if value < interval * 2 then break end
    for phantom = value - interval, interval + 1, -interval do
      if counts[phantom] then counts[phantom] = counts[phantom] - counts[value] end
    end
  end
  return values, counts
end

local function percentiles(latency, summary)
  local values, counts = measured(latency, summary)
  local total, sum = 0, 0
  for _, value in ipairs(values) do
    local count = counts[value]
    assert(count >= 0, "this wrk corrects latencies in another way than 4.1")
    total, sum = total + count, sum + count * value
  end
  local micros = { min = latency.min, max = latency.max, mean = total > 0 and sum / total or 0, samples = total }
  local wanted, next_one, seen = { 50, 90, 95, 99, 99.9, 99.99 }, 1, 0
  for _, value in ipairs(values) do
    seen = seen + counts[value]
    while wanted[next_one] and seen >= total * wanted[next_one] / 100 do
      micros["p" .. wanted[next_one]] = value
      next_one = next_one + 1
    end
  end
  return micros
end

function done(summary, latency)
  local cpu = os.clock()
  local by_status = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      by_status[status] = (by_status[status] or 0) + count
    end
  end
  print(object {
    requests = summary.requests,
    duration_us = summary.duration,
    bytes = summary.bytes,
    cpu_s = cpu,
    latency_us = percentiles(latency, summary),
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
