-- GET /json, one connection for each request.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

wrk.path = "/json"
wrk.headers["Connection"] = "close"
