-- Counts the rounds of the garbage collector.
--
-- Comes in: nothing. Goes out: a function that tells how many rounds have ended. A piece of garbage is collected once in
-- each round; its finalizer counts, and leaves the next piece.

local newproxy, getmetatable = newproxy, getmetatable
local rounds = 0

local function leave()
  local garbage = newproxy(true)
  getmetatable(garbage).__gc = function()
    rounds = rounds + 1
    leave()
  end
end

leave()

return function() return rounds end
