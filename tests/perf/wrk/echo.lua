-- POST /echo: a small JSON document that comes back.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "report.lua")

post("/echo", '{"message":"Hello, World!","number":42,"list":[1,2,3],"nested":{"flag":true}}')
