-- The functions of one route, joined into the one function that a request calls.
--
-- A route without hooks is its handler, with nothing in between. Comes in: `native`, `respond`, `refusal`, which builds
-- the response of an error, and `collect`, which waits for a request's body. Goes out: `join`, `join_all`, `or_missing` for
-- the app's `not_found`, and `join_rest` for what no route answers.

local native, respond, refusal, collect = ...

local error, type, tostring, xpcall, getinfo = error, type, tostring, xpcall, debug.getinfo
local allow, guards_at, prepared = native.allow, native.guards_at, native.prepared
local is_cancelling = native.is_cancelling
local failure, log_failure, default_answer = native.failure, native.log_failure, native.default_answer

-- `before` hooks, then the handler: the first value that is not nil is the answer.
local function guarded(before, handler)
  local n = #before
  if n == 0 then return handler end
  if n == 1 then
    local first = before[1]
    return function(ctx)
      local early = first(ctx)
      if early ~= nil then return early end
      return handler(ctx)
    end
  end
  return function(ctx)
    for i = 1, n do
      local early = before[i](ctx)
      if early ~= nil then return early end
    end
    return handler(ctx)
  end
end

-- Limits whose clients a function of the app names, then the rest. Other limits are checked before Lua is reached.
local function limited(inner, limits)
  if not limits then return inner end
  return function(ctx)
    for i = 1, #limits do
      local limit = limits[i]
      local key = limit.per(ctx)
      if type(key) == "number" then key = tostring(key) end
      if key ~= nil and not allow(ctx, limit.number, key) then return refusal(429) end
    end
    return inner(ctx)
  end
end

-- The answer to a failure: the app's own, else Rover's. A failure of `on_error` itself is logged as well, unless it is one
-- that asks for its answer.
local function recover(ctx, failed, on_error, place)
  -- Where the stack is full not even `failure` can run.
  if type(failed) ~= "table" then failed = { failed } end
  -- The client has gone away: nobody waits for an answer.
  if is_cancelling() then error(failed[1], 0) end
  log_failure(ctx, failed, place)
  if on_error then
    local ok, own = xpcall(on_error, failure, ctx, failed[1])
    if not ok then
      if type(own) ~= "table" then own = { own } end
      if not log_failure(ctx, own, place) then return default_answer(ctx, own, place) end
    elseif own ~= nil then
      return own
    end
  end
  return default_answer(ctx, failed, place)
end

-- Gives the function and whether it takes a context: one for which nobody has a use is not made.
local function join(handler, before, after, on_error, place, limits)
  local inner = limited(guarded(before, handler), limits)
  local n = #after
  if n == 0 and not on_error then
    local info = getinfo(inner, "u")
    return inner, info.isvararg or info.nparams > 0
  end
  return function(ctx)
    local ok, res = xpcall(inner, failure, ctx)
    if not ok then res = recover(ctx, res, on_error, place) end
    if n > 0 then
      res = respond(res)
      for i = n, 1, -1 do
        local went, other = xpcall(after[i], failure, ctx, res)
        if not went then
          res = respond(recover(ctx, other, on_error, place))
        elseif other ~= nil and other ~= res then
          res = respond(other)
        end
      end
    end
    return res
  end, true
end

-- A handler that waits for the body first. What cannot be had is refused.
local function collecting(handler)
  return function(ctx)
    local status = collect(ctx)
    if status then return refusal(status) end
    return handler(ctx)
  end
end

-- Methods whose bodies may have to be collected, also where the endpoint says nothing of them.
local COLLECTED = { post = true, put = true, patch = true, any = true }

-- Sets of hooks that are kept joined for one function; beyond them each request joins its own. There are as many as there
-- are ways in which the app's own places lie above a path.
local MOST_SETS = 1000

-- A function whose hooks depend on the path: `choose` knows those that Rust finds for it.
local function join_by_path(choose, handler, on_error, place, limits)
  local joined, sets = {}, 0
  return function(ctx)
    local key = guards_at(ctx)
    local run = joined[key]
    if not run then
      local before, after = choose(key)
      run = join(handler, before, after, on_error, place, limits)
      if sets < MOST_SETS then joined[key], sets = run, sets + 1 end
    end
    return run(ctx)
  end, true
end

local function join_route(route, handler, on_error, place)
  if route.choose then return join_by_path(route.choose, handler, on_error, place, route.limits) end
  return join(handler, route.before, route.after, on_error, place, route.limits)
end

-- The function of a request whose body has not been collected: it comes between the hooks and the handler. Nil where
-- there are no hooks, for then it is collected before Lua is reached, and where nobody collects it.
local function join_late(route, on_error, place)
  if #route.before == 0 and not route.limits and not route.choose then return end
  if not COLLECTED[route.verb] and not route.endpoint or native.proxies[route.handler] then return end
  return (join_route(route, collecting(route.handler), on_error, place))
end

-- All routes at once: the list of their functions, a list of whether each takes a context, one of whether its handler
-- passes the body of its requests on, and the functions of those whose bodies come late, each behind its route's number.
local function join_all(routes, on_error)
  local entries, takes, passes, late = {}, {}, {}, {}
  local proxies = native.proxies
  for i = 1, #routes do
    local route = routes[i]
    -- Only a function around the handler has a use for the place.
    local place = (on_error or #route.after > 0 or route.choose) and ("%s:%d"):format(route.file, route.line)
    passes[i] = proxies[route.handler] or false
    entries[i], takes[i] = join_route(route, route.handler, on_error, place)
    local later = join_late(route, on_error, place)
    if later then
      local n = #late
      late[n + 1], late[n + 2] = i, later
    end
  end
  return entries, takes, passes, late
end

-- `not_found` as a handler: where it returns nothing, the default answers.
local function or_missing(not_found)
  return function(ctx)
    local own = not_found(ctx)
    if own == nil then return refusal(404) end
    return own
  end
end

-- What answers where no route does and hooks guard the path: files and refusals, which Rust has ready, or `not_found`.
-- With `waits`, the function for requests whose body `not_found` has to wait for.
local function join_rest(choose, not_found, on_error, place, waits)
  local handler = not_found and or_missing(not_found)
  if waits then handler = collecting(handler) end
  return (join_by_path(choose, function(ctx)
    local own = prepared(ctx)
    if own ~= nil then return own end
    return handler(ctx)
  end, on_error, place))
end

return join, join_all, or_missing, join_rest
