-- The result of a call: what it can be asked.
--
-- Comes in: `cookie`, which reads one line of Set-Cookie, and `mistake`. Goes out: the metatable.

local cookie, mistake = ...

local ipairs, type = ipairs, type

local methods = {}

--- `res:cookies()` → the cookies that the answer sets, by name; the last one of a name.
function methods.cookies(res)
  local headers = type(res) == "table" and res.headers
  if type(headers) ~= "table" then mistake("call it with a colon: res:cookies()") end
  local cookies = {}
  local lines = headers["set-cookie"]
  for _, line in ipairs(type(lines) == "table" and lines or { lines }) do
    local name, value = cookie(line)
    if name then cookies[name] = value end
  end
  return cookies
end

return { __index = methods, __metatable = false }
