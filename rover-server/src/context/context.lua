-- The metatable of every context: methods first, then the fields, which are computed once and kept.

local methods, field, mistake = ...

local rawget, rawset, type = rawget, rawset, type

-- The numbers by which `fields.rs` knows the fields.
local FIELDS = { method = 1, path = 2, query_string = 3, host = 4, scheme = 5, ip = 6, version = 7 }

-- Where `ctx:set` keeps its values; 2 to 7 belong to Rust.
local STORE = 8

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
