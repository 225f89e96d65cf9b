-- One route of 200 with two parameters, a query value and two headers read; 1 000 different paths in turn.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

local requests, at = {}, 0

function init()
  local headers = {
    ["Host"] = wrk.headers["Host"],
    ["Accept"] = "application/json",
    ["Accept-Language"] = "en-GB",
    ["User-Agent"] = "wrk",
    ["X-Client"] = "perf",
  }
  for i = 1, 1000 do
    local path = string.format("/api/v1/res137/%d/items/%d?q=red+shoes", 999 + i, 2000 - i)
    requests[i] = wrk.format("GET", path, headers)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
