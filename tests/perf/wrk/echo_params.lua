-- GET /echo/{name}/{id}: 1 000 different paths in turn, so that no cache of one path can shine.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

local requests, at = {}, 0

function init()
  for i = 1, 1000 do requests[i] = wrk.format("GET", "/echo/ada%20lovelace/" .. 999 + i) end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
