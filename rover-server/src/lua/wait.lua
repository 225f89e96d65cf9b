-- Wraps a function that waits: `begin` starts it, `suspend` comes back with `true, results…` or `false, error`, and
-- `plain` makes text of what `begin` raises; `mistake` raises text at the line of the app.

local begin, suspend, plain, mistake = ...

local error, pcall, type = error, pcall, type

local function fail(problem)
  if type(problem) == "string" then mistake(problem) end
  error(problem, 0)
end

local function finish(ok, ...)
  if ok then return ... end
  fail((...))
end

return function(...)
  local ok, problem = pcall(begin, ...)
  if not ok then fail(plain(problem)) end
  return finish(suspend())
end
