-- GET /body100k: an answer of 100 KiB.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

wrk.path = "/body100k"
