-- GET /cpu: work for the CPU in the handler.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

wrk.path = "/cpu"
