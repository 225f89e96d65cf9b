-- Handlers that wait, and a route that does not: for `tests/perf/run asleep`.

local api = rover.server {}
local asleep = 0

function api.asleep.p_seconds.get(ctx)
  asleep = asleep + 1
  rover.sleep(tonumber(ctx:params().seconds))
  asleep = asleep - 1
  return "awake"
end

function api.fast.get() return "fast" end

function api.count.get() return { asleep = asleep } end

function api.memory.get()
  collectgarbage()
  collectgarbage()
  return { lua = collectgarbage("count") * 1024 }
end

return api
