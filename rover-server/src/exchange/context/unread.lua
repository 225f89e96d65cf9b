-- `ctx:body()` and `ctx:json()` where a body may come while Lua code runs, and readers of bodies.
--
-- Comes in: the methods of contexts; whether there are such bodies; `collect`, which waits for one and gives the status that
-- refuses it, if any; `refusal`, which makes the response of a status; `read`, which gives a piece, or nil and such a status;
-- the table of the methods of readers, and their metatable.

local methods, may_be_late, collect, refusal, read, reader, meta = ...

local error = error

if may_be_late then
  local body, json = methods.body, methods.json

  local function wait(ctx)
    local status = collect(ctx)
    if status then error(refusal(status), 0) end
  end

  function methods.body(ctx)
    local found = body(ctx)
    -- False where it is still to come.
    if found ~= false then return found end
    wait(ctx)
    return body(ctx)
  end

  function methods.json(ctx)
    local value = json(ctx)
    -- Nil where it is still to come; `null` is another value.
    if value ~= nil then return value end
    wait(ctx)
    return json(ctx)
  end
end

local REASONS = {
  [400] = "the request body broke off or is framed wrongly",
  [408] = "the client stopped sending",
  [413] = "the request body is too large",
}

--- `reader:read()` → the next piece; nil at the end; nil and what went wrong.
function reader.read(self)
  local piece, status = read(self)
  if status then return nil, REASONS[status] end
  return piece
end

-- `for piece in reader do`: what goes wrong is answered, for a loop would take it for the end.
function meta.__call(self)
  local piece, status = read(self)
  if status then error(refusal(status), 0) end
  return piece
end
