-- Wraps native functions that wait: they come back with `true, results…`, with `false, mistake`, which is raised at the
-- line of the app, or with `nil, error`, which is raised as it is.
--
-- Comes in: `mistake`, which raises text at the line of the app; `plain`, which makes text of mlua's errors. Goes out:
-- `waiting`, for a native function, and `asynchronous`, for one of mlua that only `begin`s, before `suspend` waits.

local mistake, plain = ...

local error, pcall, type = error, pcall, type

local function finish(ok, ...)
  if ok then return ... end
  local problem = ...
  if ok == false and type(problem) == "string" then mistake(problem) end
  error(problem, 0)
end

local function waiting(native)
  return function(...)
    return finish(native(...))
  end
end

local function asynchronous(begin, suspend)
  return function(...)
    local ok, problem = pcall(begin, ...)
    if not ok then finish(false, plain(problem)) end
    return finish(suspend())
  end
end

return waiting, asynchronous
