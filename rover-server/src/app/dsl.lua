-- The auto-table that `rover.server` returns: it records what the app declares, and builds responses.
--
-- Comes in: `native`, the functions that Rust lends to this file. Goes out: `server`, `seal` and the tables that Rust
-- reads afterwards. Nothing here runs for a request, except the builders.

local native, Response, builders = ...

local getinfo, error, type, tostring, rawset, setmetatable = debug.getinfo, error, type, tostring, rawset, setmetatable

local VERBS = { get = true, post = true, put = true, patch = true, delete = true, head = true, options = true, any = true }
local HOOKS = { on_start = true, on_ready = true, on_shutdown = true, on_error = true, not_found = true }

local declared = {
  routes = {},   -- { verb, handler, file, line, node, segments }
  hooks = {},    -- name -> function
  mistakes = {}, -- { file, line, message }
}

local root         -- the node that `rover.server` returned
local sealed       -- true once the app has loaded
local children = {} -- node -> { segment -> node }
local parent = {}  -- node -> node
local segment = {} -- node -> text
local stages = {}  -- node -> { before = stage, after = stage }
local entries = {} -- stage -> array of { name, function }, in the order written
local builder = {} -- node -> what calling it does

-- The file and line of the code `level` calls up, as the log shows them. Nobody on the way may end in a tail call, which
-- would leave the stack.
local function where(level)
  local at = getinfo(level + 1, "Sl")
  return at.short_src, at.currentline
end

local function mistake(level, message)
  local file, line = where(level + 1)
  declared.mistakes[#declared.mistakes + 1] = { file, line, message }
end

-- How a Lua author writes this node: `api.users.p_id`.
local function written(node)
  if node == root then return "api" end
  local key = segment[node]
  local own = key:find("^[%a_][%w_]*$") and "." .. key or ("[%q]"):format(key)
  return written(parent[node]) .. own
end

local function refuse_when_sealed(level, what)
  if sealed then
    error(what .. " after the app has loaded: routes and hooks are declared at the top level of the app", level + 1)
  end
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
    error(written(node) .. " has no field '" .. tostring(key) .. "'", 2)
  end
  if key == "before" or key == "after" then return stage_of(node, key) end
  if type(key) == "number" and key % 1 == 0 then key = ("%d"):format(key) end
  if type(key) ~= "string" then
    error("a path segment is a string, not a " .. type(key), 2)
  end
  return child_of(node, key)
end

local function declare_route(node, verb, handler)
  if type(handler) ~= "function" then
    mistake(3, ("%s.%s must be a function, not a %s"):format(written(node), verb, type(handler)))
    return
  end
  local segments, at = {}, node
  while at ~= root do
    table.insert(segments, 1, segment[at])
    at = parent[at]
  end
  local file, line = where(3)
  declared.routes[#declared.routes + 1] =
    { verb = verb, handler = handler, file = file, line = line, node = node, segments = segments }
end

local function declare_hook(name, hook)
  if type(hook) ~= "function" then
    mistake(3, ("api.%s must be a function, not a %s"):format(name, type(hook)))
  elseif declared.hooks[name] then
    mistake(3, ("api.%s is already declared; keep one of the two"):format(name))
  else
    declared.hooks[name] = hook
  end
end

function node_meta.__newindex(node, key, value)
  if sealed then refuse_when_sealed(2, "assigning to " .. written(node) .. "." .. tostring(key)) end
  if VERBS[key] then
    declare_route(node, key, value)
    return
  elseif node == root and HOOKS[key] then
    declare_hook(key, value)
    return
  end
  local name = written(node) .. "." .. tostring(key)
  if key == "before" or key == "after" then
    mistake(2, ("give this hook a name: function %s.NAME(ctx)"):format(name))
  elseif key == "ws" then
    mistake(2, name .. ": WebSockets are not part of this version of Rover")
  elseif type(value) == "function" then
    mistake(2, native.unknown_verb(name, tostring(key)))
  else
    mistake(2, ("%s: a %s cannot be assigned here; declare handlers, as in function %s.get(ctx)"):format(name, type(value), name))
  end
end

function node_meta.__call(node, ...)
  local build = builder[node]
  if not build then
    error(written(node) .. " is a path, not a function", 2)
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
  refuse_when_sealed(2, "adding the hook '" .. tostring(name) .. "'")
  if type(value) ~= "function" then
    mistake(2, ("the hook '%s' must be a function, not a %s"):format(tostring(name), type(value)))
    return
  end
  local list = entries[stage]
  for i = 1, #list do
    if list[i][1] == name then
      list[i][2] = value
      return
    end
  end
  list[#list + 1] = { name, value }
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
  if root then error("rover.server may be called once per app", 2) end
  if config ~= nil and type(config) ~= "table" then
    error("rover.server expects a table, got a " .. type(config), 2)
  end
  local file, line = where(2)
  native.configure(config or {}, file, line)
  root = setmetatable({}, node_meta)
  children[root] = {}
  return root
end

-- Ends the declaring: from now on the tree only builds responses. Answers what Rust needs to serve.
function M.seal(returned)
  if not root then
    return nil, "the app never calls rover.server { … }"
  elseif returned ~= root then
    return nil, "the app must end with `return api`, the value that rover.server gave"
  end
  for _, route in ipairs(declared.routes) do
    route.before = collect(route.node, "before")
    route.after = collect(route.node, "after")
    route.node = nil
  end
  for name, build in pairs(builders) do
    local outer, inner = name:match("^([^.]+)%.?(.*)$")
    local node = child_of(root, outer)
    rawset(root, outer, node)
    if inner ~= "" then rawset(node, inner, child_of(node, inner)) end
  end
  sealed = true
  return declared
end

return M
