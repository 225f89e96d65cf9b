-- Wraps a function that waits: `begin` starts it, `suspend` comes back with `true, results…` or `false, error`, and
-- `plain` makes text of what `begin` raises.

local begin, suspend, plain = ...

local error, pcall = error, pcall

local function finish(ok, ...)
  if ok then return ... end
  error((...), 2)
end

return function(...)
  local ok, problem = pcall(begin, ...)
  if not ok then error(plain(problem), 2) end
  return finish(suspend())
end
