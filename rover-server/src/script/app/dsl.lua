-- The auto-table that `rover.server` returns: it records what the app declares, and builds responses.
--
-- Comes in: `native`, the functions that Rust lends to this file, `mistake`, which raises at the line of the app, the
-- builders, and `read_endpoint`, which reads the table of an endpoint. Goes out: `server`, `seal` and the tables that Rust
-- reads afterwards. Nothing here runs for a request, except the builders.

local native, mistake, builders, read_endpoint = ...

local getinfo, type, tostring, rawset, setmetatable, xpcall = debug.getinfo, type, tostring, rawset, setmetatable, xpcall
local getmetatable, unpack, sort = getmetatable, unpack, table.sort

local VERBS = { get = true, post = true, put = true, patch = true, delete = true, head = true, options = true, any = true }
local HOOKS = {
  on_start = true, on_ready = true, on_ready_check = true, on_shutdown = true, on_error = true, not_found = true,
}

local declared = {
  routes = {},   -- { verb, handler, file, line, place, before, after }
  hooks = {},    -- name -> function
  limits = {},   -- { rule, methods, per, place, where, name }
  cors_origins = nil, -- the function of the config's cors.origins
  mistakes = {}, -- { file, line, message }; line 0 where the mistake has none
}

local root         -- the node that `rover.server` returned
local origin       -- where `rover.server` was called
local sealed       -- true once the app has loaded
-- What is known of a node: { node, parent, segment, children, stages, builder }. The parent is such a place as well, the
-- children are nodes by their segment, the stages { before = stage, after = stage }; these two are made when they are
-- needed. One table for all of it, without room for what few nodes have, keeps an app with many routes quick to load.
local place_at = {} -- node -> place

-- The file and line of the app's code that is running: the innermost function that is neither C nor Rover's own. Where a
-- tail call has left none, the app's file alone. `level` is where the search begins, if that is known.
local function where(level)
  level = level or 3
  local at = getinfo(level, "Sl")
  while at and (at.currentline <= 0 or at.source:sub(1, 7) == "=rover/") do
    level = level + 1
    at = getinfo(level, "Sl")
  end
  if at then
    -- `short_src` is cut to 60 bytes.
    local file = at.source:match("^@(.*)") or at.short_src
    return file, at.currentline
  end
  return native.name, 0
end

local function place_of(file, line)
  return line > 0 and ("%s:%d"):format(file, line) or file
end

-- Notes a mistake; the app loads on, so that all of them come to light.
local function note(message)
  local file, line = where()
  declared.mistakes[#declared.mistakes + 1] = { file, line, message }
end

local function a(value)
  return value == nil and "nil" or "a " .. type(value)
end

-- How a Lua author writes the node of this place: `api.users.p_id`.
local function written(place)
  if not place.parent then return "api" end
  local key = place.segment
  local own = key:find("^[%a_][%w_]*$") and "." .. key or ("[%q]"):format(key)
  return written(place.parent) .. own
end

local function refuse_when_sealed(what)
  if sealed then mistake(what .. " after the app has loaded: routes and hooks are declared at its top level") end
end

local node_meta = {}

-- The segments of a path, from the last one to the first, and how many they are.
local function segments_of(place)
  local segments, n = {}, 0
  while place.parent do
    n = n + 1
    segments[n] = place.segment
    place = place.parent
  end
  return segments, n
end

-- The path without the names of its parameters, with a slash behind each segment.
local function shape_of(place)
  if not place.parent then return "/" end
  local segment = place.segment
  if segment:find("^p_") then segment = "{}" elseif segment:find("^{%*") then segment = "{*}" end
  return shape_of(place.parent) .. segment .. "/"
end

local hooks = native.hooks(native, {
  where = where, place_of = place_of, note = note, a = a, written = written, refuse_when_sealed = refuse_when_sealed,
  segments = segments_of, mistakes = declared.mistakes,
})

local function builder_of(above, key)
  if not above.parent then return builders[key] end
  if above.builder and not above.parent.parent then return builders[above.segment .. "." .. key] end
end

-- The node below `above`, made where there is none.
local function child_of(above, key)
  local children = above.children
  local child = children and children[key]
  if child then return child end
  child = setmetatable({}, node_meta)
  local place = { node = child, parent = above, segment = key, children = false }
  local build = builder_of(above, key)
  if build then place.builder = build end
  place_at[child] = place
  if children then
    children[key] = child
  else
    above.children = { [key] = child }
  end
  return child
end

function node_meta.__index(node, key)
  local place = place_at[node]
  local children = place.children
  local child = children and children[key]
  if child then return child end
  if sealed then
    mistake(("%s has no field '%s'; routes and hooks are declared at the top level of the app"):format(
      written(place), tostring(key)))
  end
  if key == "before" or key == "after" then return hooks.stage_of(place, key) end
  if type(key) == "number" and key % 1 == 0 then key = ("%d"):format(key) end
  if type(key) ~= "string" then mistake("a path segment is a string, not a " .. type(key)) end
  -- Two spellings of one parameter are one place, with the same hooks.
  local name = key:match("^{([%a_][%w_]*)}$")
  if name then key = "p_" .. name end
  if key == "ws" then
    note(("%s.ws: ws is reserved for WebSockets; declare one with function %s.ws(ws)"):format(written(place), written(place)))
  end
  return child_of(place, key)
end

-- Whether one declaration stands before another: by file and line; on one line what a loop over `pairs` declares goes by
-- its name, behind the rest, which goes as it was written.
local function is_before(one, other)
  if one.file ~= other.file then return one.file < other.file end
  if one.line ~= other.line then return one.line < other.line end
  if one.is_loose ~= other.is_loose then return other.is_loose end
  if not one.is_loose then return one.number < other.number end
  if one.verb ~= other.verb then return one.verb < other.verb end
  local own, others = written(one.place), written(other.place)
  if own ~= others then return own < others end
  return one.number < other.number
end

local on_line = {} -- by line and kind, the first declaration there

-- Adds a declaration to a list of one kind, with its number there.
local function add(list, declaration)
  declaration.number = #list + 1
  list[declaration.number] = declaration
  -- What stands on a line of its own needs no look at the loops around it.
  local known = on_line[list]
  if not known then
    known = {}
    on_line[list] = known
  end
  local first = known[declaration.line]
  if first then
    first.is_loose = first.is_loose or hooks.is_in_pairs_loop()
    declaration.is_loose = first.is_loose
  else
    known[declaration.line] = declaration
    declaration.is_loose = false
  end
end

-- Puts declarations in an order that is the same in every VM: a loop over `pairs` gives them in another one in each.
local function settle_order(list)
  for i = 2, #list do
    if is_before(list[i], list[i - 1]) then return sort(list, is_before) end
  end
end

-- Called by `node_meta.__newindex` alone, for `where`.
local function declare_route(place, verb, handler)
  local endpoint
  if type(handler) == "table" and getmetatable(handler) ~= node_meta then
    handler, endpoint = read_endpoint(("%s.%s"):format(written(place), verb), handler, note)
    if not handler then return end
  elseif type(handler) ~= "function" then
    return note(("%s.%s must be a function, or a table with one, not %s"):format(written(place), verb, a(handler)))
  end
  local file, line = where(4)
  add(declared.routes, {
    verb = verb, handler = handler, file = file, line = line, place = place, endpoint = endpoint,
  })
end

local sockets = {} -- { declaration, file, line, place, at }

local function declare_socket(place, declaration)
  local name = written(place) .. ".ws"
  if type(declaration) ~= "function" then
    return note(("%s must be a function, not %s"):format(name, a(declaration)))
  elseif place.socket then
    return note(("%s is already declared (%s); remove one of the two"):format(name, place.socket.at))
  end
  local file, line = where(4)
  place.socket = { declaration = declaration, file = file, line = line, place = place, at = place_of(file, line) }
  add(sockets, place.socket)
end

-- `api.assets.static { dir = … }`: a folder of files under the path above `place`.
local function declare_mount(place, options)
  refuse_when_sealed("serving a folder")
  local name = written(place)
  if type(options) ~= "table" or getmetatable(options) == node_meta then
    return note(('%s takes a table: %s { dir = "public" }'):format(name, name))
  end
  local segments, at = {}, place.parent
  while at.parent do
    table.insert(segments, 1, at.segment)
    at = at.parent
  end
  local file, line = where()
  native.mount(segments, name, options, file, line)
end

local hook_places = {} -- name -> place

local function declare_hook(name, hook)
  if type(hook) ~= "function" then
    note(("api.%s must be a function, not %s"):format(name, a(hook)))
  elseif declared.hooks[name] then
    note(("api.%s is already declared (%s); remove one of the two"):format(name, hook_places[name]))
  else
    declared.hooks[name] = hook
    hook_places[name] = place_of(where())
  end
end

function node_meta.__newindex(node, key, value)
  local place = place_at[node]
  if sealed then refuse_when_sealed("assigning to " .. written(place) .. "." .. tostring(key)) end
  if VERBS[key] then
    declare_route(place, key, value)
    return
  elseif node == root and HOOKS[key] then
    declare_hook(key, value)
    return
  end
  local name = ("%s.%s"):format(written(place), tostring(key))
  if key == "before" or key == "after" then
    note(("give this hook a name: function %s.NAME(ctx)"):format(name))
  elseif key == "ws" then
    declare_socket(place, value)
  elseif type(value) == "function" then
    note(native.unknown_verb(name, tostring(key)))
  else
    note(("%s cannot be %s; declare handlers, as in function %s.get(ctx)"):format(name, a(value), name))
  end
end

-- The verbs of a limit as a set; false for all of them.
local function verbs_of(methods, name)
  if methods == nil then return false end
  local set = {}
  for _, verb in ipairs(type(methods) == "table" and methods or { methods }) do
    local known = type(verb) == "string" and verb:lower()
    if not VERBS[known] then
      note(("%s: methods must be a list of verbs such as { \"post\" }, got %s"):format(name,
        type(verb) == "string" and ("%q"):format(verb) or a(verb)))
      return false
    end
    set[known] = true
  end
  return set
end

-- `api.login.limit { … }`: a rate limit for the routes of this table and of those below it.
local function declare_limit(place, options)
  refuse_when_sealed("declaring a limit")
  local name = written(place) .. ".limit"
  if type(options) ~= "table" then
    return note(("%s expects a table such as { rate = \"5/m\" }, not %s"):format(name, a(options)))
  end
  local rule = {}
  for key, value in pairs(options) do
    if key ~= "methods" then rule[key] = value end
  end
  local file, line = where()
  add(declared.limits, {
    rule = rule,
    methods = verbs_of(options.methods, name),
    per = type(options.per) == "function" and options.per or nil,
    place = place,
    file = file,
    line = line,
    where = place_of(file, line),
    name = name,
  })
end

function node_meta.__call(node, ...)
  local place = place_at[node]
  local build = place.builder
  if not build and place.parent and (place.segment == "limit" or place.segment == "static") then
    local options = ...
    if options == place.parent.node then options = select(2, ...) end
    if place.segment == "limit" then return declare_limit(place.parent, options) end
    return declare_mount(place, options)
  end
  if not build then mistake(written(place) .. " is a path, not a function") end
  -- `api.json(t)` and `api:json(t)`, `api.json.status(201, t)` and `api.json:status(201, t)` are the same.
  local first = ...
  if first == root or (first ~= nil and place.parent and first == place.parent.node) then
    return build(select(2, ...))
  end
  return build(...)
end

function node_meta.__tostring(node) return written(place_at[node]) end

-- Whether a path lies at or below another one, whatever their parameters are called.
local function is_below(place, above)
  local shape, other = shape_of(place), shape_of(above)
  return shape:sub(1, #other) == other
end

-- Tells Rust which limits a route has. Gives those whose clients a function of the app names, if there are any.
local function limits_of(route, number)
  local own
  for i, limit in ipairs(declared.limits) do
    if is_below(route.place, limit.place) and (not limit.methods or limit.methods[route.verb]) then
      if limit.per then
        own = own or {}
        own[#own + 1] = { per = limit.per, number = i }
      else
        native.limit(number, i)
      end
    end
  end
  if declared.limit_per then
    own = own or {}
    -- The limit of all requests stands behind the others.
    own[#own + 1] = { per = declared.limit_per, number = #declared.limits + 1 }
  end
  return own
end

-- Tells Rust of a route: its verb, file and line, and its path.
local function tell(route)
  local segments, n = segments_of(route.place)
  native.route(route.verb, route.file, route.line, unpack(segments, 1, n))
end

-- A function in a table of the config, if there is one.
local function function_in(config, group, key)
  local settings = config and config[group]
  local value = type(settings) == "table" and settings[key]
  return type(value) == "function" and value or nil
end

-- `builder` is the metatable of `api.json` and its like.
local M = { builder = node_meta }

-- Runs the declarations of WebSockets. Their handshakes are GET requests: what else a GET of their paths declares answers
-- requests that are none.
local function settle_sockets()
  settle_order(sockets)
  for number, socket in ipairs(sockets) do
    local place = socket.place
    local ok, endpoint = xpcall(function() return native.declare_socket(number, socket.declaration, socket.at) end, native.failure)
    if not ok then
      -- `native.failure` gave the error and where it was raised.
      local message = tostring(type(endpoint) == "table" and endpoint[1] or endpoint)
      local file, line, rest = message:match("^(.-):(%d+): (.*)$")
      if file then
        declared.mistakes[#declared.mistakes + 1] = { file, tonumber(line), rest }
      else
        declared.mistakes[#declared.mistakes + 1] = { socket.file, socket.line, message }
      end
    else
      local get, any
      for _, route in ipairs(declared.routes) do
        local is_here = route.place == place or shape_of(route.place) == shape_of(place)
        if is_here and route.verb == "get" then get = route end
        if is_here and route.verb == "any" then any = route end
      end
      if get then
        get.handler = native.socket_handler(endpoint, get.handler)
      else
        add(declared.routes, {
          verb = "get", handler = native.socket_handler(endpoint, any and any.handler), file = socket.file, line = socket.line, place = place,
        })
      end
    end
  end
end

function M.server(config)
  if root then
    note(("rover.server may be called once per app; the first call is at %s"):format(origin))
    return root
  end
  if config ~= nil and type(config) ~= "table" then
    mistake("rover.server expects a table, not " .. a(config))
  end
  origin = place_of(where())
  native.configure(config or {}, origin)
  declared.cors_origins = function_in(config, "cors", "origins")
  declared.limit_per = function_in(config, "rate_limit", "per")
  root = setmetatable({}, node_meta)
  place_at[root] = { node = root }
  return root
end

-- Runs the top-level code of the app: `true` and its first result, or `false` and what went wrong as text.
function M.run(chunk)
  local ok, result = xpcall(chunk, native.failure)
  if ok then return true, result end
  return false, native.described(nil, result, native.name)
end

-- What the app has declared up to an error at its top level, as far as that can be checked without the rest.
function M.declared()
  for _, route in ipairs(declared.routes) do
    if route.place then tell(route) end
  end
  return declared
end

-- Ends the declaring: from now on the tree only builds responses. Answers what Rust needs to serve.
function M.seal(returned)
  if returned ~= root or not root then
    local message = "the app must end with `return api`, the value that rover.server gave"
    if not root then message = "the app never calls rover.server { … }" end
    declared.mistakes[#declared.mistakes + 1] = { native.name, 0, message }
  end
  if root then settle_sockets() end
  hooks.settle()
  settle_order(declared.routes)
  settle_order(declared.limits)
  for number, route in ipairs(declared.routes) do
    tell(route)
    if route.endpoint then native.endpoint_of(route.endpoint, number) end
    route.limits = limits_of(route, number)
    hooks.of_route(route)
    route.place = nil
  end
  if #declared.mistakes == 0 then hooks.note_idle() end
  declared.choose = hooks.choose()
  -- Builders are read without a metamethod from here on.
  if root then
    for name in pairs(builders) do
      local outer, inner = name:match("^([^.]+)%.?(.*)$")
      local node = child_of(place_at[root], outer)
      rawset(root, outer, node)
      if inner ~= "" then rawset(node, inner, child_of(place_at[node], inner)) end
    end
  end
  sealed = true
  return declared
end

return M
