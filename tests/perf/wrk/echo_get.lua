-- GET /echo with a query value that needs decoding.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

wrk.path = "/echo?message=Hello%2C+World%21"
