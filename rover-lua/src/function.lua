-- Wraps a Rust function: `call` is mlua's, `plain` makes text of the errors that it raises, and `mistake` raises text at
-- the line of the app.

local call, plain, mistake = ...

local error, pcall, type = error, pcall, type

local function finish(ok, ...)
  if ok then return ... end
  local problem = plain((...))
  if type(problem) == "string" then mistake(problem) end
  error(problem, 0)
end

return function(...)
  return finish(pcall(call, ...))
end
