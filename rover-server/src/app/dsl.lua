-- The auto-table that `rover.server` returns: it records what the app declares, and builds responses.
--
-- Comes in: `native`, the functions that Rust lends to this file, `mistake`, which raises at the line of the app, and the
-- builders. Goes out: `server`, `seal` and the tables that Rust reads afterwards. Nothing here runs for a request, except
-- the builders.

local native, mistake, builders = ...

local getinfo, type, tostring, rawset, setmetatable, xpcall = debug.getinfo, type, tostring, rawset, setmetatable, xpcall
local getmetatable = getmetatable

local VERBS = { get = true, post = true, put = true, patch = true, delete = true, head = true, options = true, any = true }
local HOOKS = { on_start = true, on_ready = true, on_shutdown = true, on_error = true, not_found = true }

local declared = {
  routes = {},   -- { verb, handler, file, line, node, segments }
  hooks = {},    -- name -> function
  mistakes = {}, -- { file, line, message }; line 0 where the mistake has none
}

local root         -- the node that `rover.server` returned
local origin       -- where `rover.server` was called
local sealed       -- true once the app has loaded
local children = {} -- node -> { segment -> node }
local parent = {}  -- node -> node
local segment = {} -- node -> text
local stages = {}  -- node -> { before = stage, after = stage }
local entries = {} -- stage -> array of { name, function, place }, in the order written
local builder = {} -- node -> what calling it does

-- The file and line of the app's code that is running: the innermost function that is neither C nor Rover's own. Where a
-- tail call has left none, the app's file alone.
local function where()
  local level = 3
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

-- How a Lua author writes this node: `api.users.p_id`.
local function written(node)
  if node == root then return "api" end
  local key = segment[node]
  local own = key:find("^[%a_][%w_]*$") and "." .. key or ("[%q]"):format(key)
  return written(parent[node]) .. own
end

local function refuse_when_sealed(what)
  if sealed then mistake(what .. " after the app has loaded: routes and hooks are declared at its top level") end
end

local node_meta, stage_meta = {}, {}

local function new_node(above, key)
  local node = setmetatable({}, node_meta)
  children[node] = {}
  parent[node] = above
  segment[node] = key
  if above == root then
    builder[node] = builders[key]
  elseif builder[above] and parent[above] == root then
    builder[node] = builders[segment[above] .. "." .. key]
  end
  return node
end

local function child_of(node, key)
  local child = children[node][key]
  if not child then
    child = new_node(node, key)
    children[node][key] = child
  end
  return child
end

local function stage_of(node, name)
  local own = stages[node]
  if not own then
    own = {}
    stages[node] = own
  end
  local stage = own[name]
  if not stage then
    stage = setmetatable({}, stage_meta)
    entries[stage] = {}
    own[name] = stage
  end
  return stage
end

function node_meta.__index(node, key)
  local child = children[node][key]
  if child then return child end
  if sealed then
    mistake(("%s has no field '%s'; routes and hooks are declared at the top level of the app"):format(
      written(node), tostring(key)))
  end
  if key == "before" or key == "after" then return stage_of(node, key) end
  if type(key) == "number" and key % 1 == 0 then key = ("%d"):format(key) end
  if type(key) ~= "string" then mistake("a path segment is a string, not a " .. type(key)) end
  -- Two spellings of one parameter are one place, with the same hooks.
  local name = key:match("^{([%a_][%w_]*)}$")
  if name then key = "p_" .. name end
  if key == "ws" then
    note(written(node) .. ".ws: WebSockets are not part of this version of Rover, and ws is reserved for them")
  end
  return child_of(node, key)
end

-- The segments from the root to `node`.
local function segments_of(node)
  local segments, at = {}, node
  while at ~= root do
    table.insert(segments, 1, segment[at])
    at = parent[at]
  end
  return segments
end

local function declare_route(node, verb, handler)
  if type(handler) ~= "function" then
    return note(("%s.%s must be a function, not %s"):format(written(node), verb, a(handler)))
  end
  local segments = segments_of(node)
  local file, line = where()
  declared.routes[#declared.routes + 1] =
    { verb = verb, handler = handler, file = file, line = line, node = node, segments = segments }
end

-- `api.assets.static { dir = … }`: a folder of files under the path of `above`.
local function declare_mount(node, above, options)
  refuse_when_sealed("serving a folder")
  if type(options) ~= "table" or getmetatable(options) == node_meta then
    return note(('%s takes a table: %s { dir = "public" }'):format(written(node), written(node)))
  end
  local file, line = where()
  native.mount(segments_of(above), written(node), options, file, line)
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
  if sealed then refuse_when_sealed("assigning to " .. written(node) .. "." .. tostring(key)) end
  if VERBS[key] then
    declare_route(node, key, value)
    return
  elseif node == root and HOOKS[key] then
    declare_hook(key, value)
    return
  end
  local name = ("%s.%s"):format(written(node), tostring(key))
  if key == "before" or key == "after" then
    note(("give this hook a name: function %s.NAME(ctx)"):format(name))
  elseif key == "ws" then
    note(name .. ": WebSockets are not part of this version of Rover, and ws is reserved for them")
  elseif type(value) == "function" then
    note(native.unknown_verb(name, tostring(key)))
  else
    note(("%s cannot be %s; declare handlers, as in function %s.get(ctx)"):format(name, a(value), name))
  end
end

function node_meta.__call(node, ...)
  local build = builder[node]
  if not build then
    if segment[node] ~= "static" then mistake(written(node) .. " is a path, not a function") end
    local options = ...
    if options == parent[node] then options = select(2, ...) end
    return declare_mount(node, parent[node], options)
  end
  -- `api.json(t)` and `api:json(t)`, `api.json.status(201, t)` and `api.json:status(201, t)` are the same.
  local first = ...
  if first == root or (first ~= nil and first == parent[node]) then
    return build(select(2, ...))
  end
  return build(...)
end

function node_meta.__tostring(node) return written(node) end

function stage_meta.__newindex(stage, name, value)
  refuse_when_sealed("adding the hook '" .. tostring(name) .. "'")
  if type(value) ~= "function" then
    return note(("the hook '%s' must be a function, not %s"):format(tostring(name), a(value)))
  end
  local list = entries[stage]
  for i = 1, #list do
    if list[i][1] == name then
      return note(("the hook '%s' is already declared (%s); give one of the two another name"):format(
        tostring(name), list[i][3]))
    end
  end
  list[#list + 1] = { name, value, place_of(where()) }
end

function stage_meta.__index(stage, name)
  local list = entries[stage]
  for i = 1, #list do
    if list[i][1] == name then return list[i][2] end
  end
end

-- All functions of one stage that apply to `node`, from the outermost table inward.
local function collect(node, name)
  local path, all = {}, {}
  local at = node
  while at do
    table.insert(path, 1, at)
    at = parent[at]
  end
  for _, step in ipairs(path) do
    local stage = stages[step] and stages[step][name]
    if stage then
      for _, entry in ipairs(entries[stage]) do all[#all + 1] = entry[2] end
    end
  end
  return all
end

local M = {}

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
  root = setmetatable({}, node_meta)
  children[root] = {}
  return root
end

-- Runs the top-level code of the app: `true` and its first result, or `false` and what went wrong as text.
function M.run(chunk)
  local ok, result = xpcall(chunk, native.failure)
  if ok then return true, result end
  return false, native.described(nil, result, native.name)
end

-- What the app has declared so far; after an error at its top level, the mistakes that were found before.
function M.declared() return declared end

-- Ends the declaring: from now on the tree only builds responses. Answers what Rust needs to serve.
function M.seal(returned)
  if returned ~= root or not root then
    local message = "the app must end with `return api`, the value that rover.server gave"
    if not root then message = "the app never calls rover.server { … }" end
    declared.mistakes[#declared.mistakes + 1] = { native.name, 0, message }
  end
  for _, route in ipairs(declared.routes) do
    route.before = collect(route.node, "before")
    route.after = collect(route.node, "after")
    route.node = nil
  end
  -- Builders are read without a metamethod from here on.
  if root then
    for name in pairs(builders) do
      local outer, inner = name:match("^([^.]+)%.?(.*)$")
      local node = child_of(root, outer)
      rawset(root, outer, node)
      if inner ~= "" then rawset(node, inner, child_of(node, inner)) end
    end
  end
  sealed = true
  return declared
end

return M
