-- Lua's coroutines, through which a wait passes: a coroutine that waits yields a value of Rover's own, its resumer passes
-- that on to whoever resumed it, and hands down what comes back. To the app this looks as if the call had blocked.
--
-- Comes in: `sign`, the value that a wait yields; `waiting`, a weak table of the coroutines that nobody but Rover may
-- resume; `refuse`, which takes a wait back and says why; `mistake`, which raises at the line of the app. Goes out: new
-- `resume`, `status` and `wrap` in Lua's library.

local sign, waiting, refuse, mistake = ...

-- What a cancelled coroutine finds at its wait. Nobody made a mistake at any line.
local CANCELLED = "cancelled"

local error, select, type = error, select, type
local create, isyieldable, resume, status, yield =
  coroutine.create, coroutine.isyieldable, coroutine.resume, coroutine.status, coroutine.yield

-- How long a message may be to get the place of each call in front: one that passes through thousands would grow without
-- end.
local LONGEST = 2000

local BUSY = "cannot resume non-suspended coroutine"

local pass

local function resumed(co, ...)
  waiting[co] = nil
  return pass(co, resume(co, ...))
end

-- The coroutine waits: so does the one that runs, or the wait fails.
local function through(co)
  waiting[co] = true
  if isyieldable() then return resumed(co, yield(sign)) end
  return resumed(co, refuse())
end

function pass(co, ...)
  local _, tag = ...
  if tag ~= sign then return ... end
  return through(co)
end

local function expect(co, name)
  if type(co) ~= "thread" then
    mistake(("bad argument #1 to '%s' (coroutine expected)"):format(name))
  end
end

local M = coroutine

function M.resume(co, ...)
  if waiting[co] then return false, BUSY end
  expect(co, "resume")
  return pass(co, resume(co, ...))
end

function M.status(co)
  expect(co, "status")
  local now = status(co)
  -- One that waits has called somebody, as it seems to the app.
  if now == "suspended" and waiting[co] then return "normal" end
  return now
end

-- As in plain Lua, text gets the place of the call in front.
local function level_of(problem)
  return type(problem) == "string" and problem ~= CANCELLED and #problem < LONGEST and 2 or 0
end

local function unwrap(ok, ...)
  if ok then return ... end
  local problem = ...
  error(problem, level_of(problem))
end

local function finish(co, ok, ...)
  if ok and ... ~= sign then return ... end
  if ok then return unwrap(through(co)) end
  local problem = ...
  error(problem, level_of(problem))
end

function M.wrap(fn)
  if type(fn) ~= "function" then
    mistake(("bad argument #1 to 'wrap' (function expected, got %s)"):format(fn == nil and "no value" or type(fn)))
  end
  local co = create(fn)
  return function(...)
    if waiting[co] then error(BUSY, 2) end
    return finish(co, resume(co, ...))
  end
end
