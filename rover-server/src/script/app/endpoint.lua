-- Reads the table that may stand for a handler: a function, and what else belongs to the endpoint.
--
-- Comes in: `native`, whose `endpoint_key` reads one key beside the function and `endpoint_end` all of them together.
-- Goes out: `read`, which gives the function and the number of the rest, and notes what is wrong with it. What the keys mean is Rust's to know.

local native = ...

local pairs, type, sort = pairs, type, table.sort

-- `name` is how the endpoint is written; `note` takes mistakes.
local function read(name, endpoint, note)
  local handler = endpoint[1]
  if type(handler) ~= "function" then
    note(("%s is a table without a function: write %s = { …, function(ctx) … end }"):format(name, name))
    return
  end
  local problems = {}
  for key, value in pairs(endpoint) do
    local problem = key ~= 1 and native.endpoint_key(key, value)
    if problem then problems[#problems + 1] = problem end
  end
  local number, problem = native.endpoint_end()
  if #problems == 0 then problems[1] = problem end
  sort(problems)
  for i = 1, #problems do note(name .. " " .. problems[i]) end
  return handler, number
end

return read
