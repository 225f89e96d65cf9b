-- The metatable of every context: methods first, then the fields, which are computed once and kept.

local methods, field, values, names, mistake = ...

local ipairs, load, rawget, rawset, tostring, type = ipairs, load, rawget, rawset, tostring, type
local concat = table.concat

-- The numbers by which `fields.rs` knows the fields.
local FIELDS = { method = 1, path = 2, query_string = 3, host = 4, scheme = 5, ip = 6, version = 7, raw_path = 8 }

-- Where the path parameters and the values of `ctx:set` are kept; 0 to 7 otherwise belong to Rust.
local PARAMS, STORE = 3, 8

-- Where `websocket.lua` keeps the subprotocol of a WebSocket.
local PROTOCOL = 10

--- `ctx:set(key, value)` keeps a value for this request.
function methods.set(ctx, key, value)
  if type(ctx) ~= "table" then mistake("call it with a colon: ctx:set(key, value)") end
  if key == nil or key ~= key then mistake("ctx:set needs a key, not " .. tostring(key)) end
  local store = rawget(ctx, STORE)
  if not store then
    store = {}
    rawset(ctx, STORE, store)
  end
  store[key] = value
end

--- `ctx:get(key)` gives back what `ctx:set` kept, or nil.
function methods.get(ctx, key)
  if type(ctx) ~= "table" then mistake("call it with a colon: ctx:get(key)") end
  local store = rawget(ctx, STORE)
  if store then return store[key] end
  return nil
end

--- `ctx:protocol()`: the subprotocol that a WebSocket speaks, or nil.
function methods.protocol(ctx)
  if type(ctx) ~= "table" then mistake("call it with a colon: ctx:protocol()") end
  return rawget(ctx, PROTOCOL)
end

-- The function that makes the table of parameters, by the number of its shape (`params.rs`).
local shapes = {}

local function shape(number)
  local values, fields = {}, {}
  for i, name in ipairs(names(number)) do
    values[i] = "v" .. i
    fields[i] = ("[%q] = v%d"):format(name, i)
  end
  local code = ("return function(%s) return { %s } end"):format(concat(values, ", "), concat(fields, ", "))
  shapes[number] = load(code, "=rover/params")()
  return shapes[number]
end

--- `ctx:params()`: the path parameters.
function methods.params(ctx)
  if type(ctx) ~= "table" then mistake("call it with a colon: ctx:params()") end
  local params = rawget(ctx, PARAMS)
  if params then return params end
  -- Four values are the most that come one by one.
  local number, a, b, c, d = values(ctx)
  if number == 0 then
    params = a
  else
    params = (shapes[number] or shape(number))(a, b, c, d)
  end
  rawset(ctx, PARAMS, params)
  return params
end

return {
  __name = "context",
  __index = function(ctx, key)
    local method = methods[key]
    if method then return method end
    local known = FIELDS[key]
    if known then
      local value = field(ctx, known)
      rawset(ctx, key, value)
      return value
    end
  end,
  __tostring = function(ctx) return "context: " .. ctx.method .. " " .. ctx.path end,
}
