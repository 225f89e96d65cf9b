-- Wraps a function that waits: `begin` starts it, `suspend` comes back with `true, results…` or `false, error`.

local begin, suspend = ...

local error = error

local function finish(ok, ...)
  if ok then return ... end
  error((...), 2)
end

return function(...)
  begin(...)
  return finish(suspend())
end
