-- GET /json, 16 requests in a write.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

pipelined(16, "/json")
