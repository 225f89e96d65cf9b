-- Wraps a Rust function: `call` is mlua's, and `plain` makes text of the errors that it raises.

local call, plain = ...

local error, pcall = error, pcall

local function finish(ok, ...)
  if ok then return ... end
  error(plain((...)), 2)
end

return function(...)
  return finish(pcall(call, ...))
end
