-- WebSockets as an app declares them, and how their messages find their handlers.
--
-- Comes in: `native`, functions that Rust lends to this file; `mistake`, which raises at the line of the app; the
-- metatable of responses; the builder of refusals; `decode`, which reads JSON; `debug`, which logs. Goes out: `declare` and
-- `handler`. Rust calls `join`, `message` and `leave` for each client, each in a coroutine of its own.

local native, mistake, Response, refusal, decode, debug = ...

local getmetatable, ipairs, pairs, rawset, select, setmetatable, tostring, type =
  getmetatable, ipairs, pairs, rawset, select, setmetatable, tostring, type

-- Where a context keeps the protocol that was chosen, as `context.lua` knows it.
local PROTOCOL = 10

-- The kinds of messages, as `functions.rs` knows them.
local JSON, TEXT, BINARY = 1, 2, 3

-- The kind of response that goes on as something else (`response.lua`).
local STREAM = 7

-- Names of handlers that are not types of messages.
local OTHERS = { message = true, text = true, binary = true }

local clients = {} -- number -> { endpoint, context, state }

local Message = { __name = "message" }
Message.__index = Message

local function check_message(message, call)
  if getmetatable(message) ~= Message then mistake("call it with a colon: " .. call) end
end

function Message:all(value)
  check_message(self, "ws.send.TYPE():all(t)")
  return native.broadcast(self.endpoint, false, nil, self.kind, self.type, value)
end

function Message:except(value)
  check_message(self, "ws.send.TYPE():except(t)")
  return native.broadcast(self.endpoint, true, nil, self.kind, self.type, value)
end

function Message:to(topic)
  check_message(self, "ws.send.TYPE():to(topic)(t)")
  if type(topic) ~= "string" then mistake(":to expects a topic as a string, not " .. type(topic)) end
  return function(value)
    return native.broadcast(self.endpoint, false, topic, self.kind, self.type, value)
  end
end

-- What sends messages of one type: to the client when it is given one, else to those that the result is asked for.
local function sender(endpoint, kind, name)
  return function(...)
    if select("#", ...) > 0 then return native.send(kind, name, (...)) end
    return setmetatable({ endpoint = endpoint, kind = kind, type = name }, Message)
  end
end

-- The subprotocols of a declaration, in the order of the server's liking.
local function check_protocols(value)
  if type(value) ~= "table" then
    mistake("ws.protocols is a list of names, such as { \"v2\", \"v1\" }, not a " .. type(value))
  end
  local protocols = { required = value.required == true }
  for key, name in pairs(value) do
    if key == "required" then
      if type(name) ~= "boolean" then mistake("required is true or false, not a " .. type(name)) end
    elseif type(key) ~= "number" then
      mistake(("ws.protocols has no option '%s'; it has names, and required"):format(tostring(key)))
    end
  end
  for i, name in ipairs(value) do
    if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
      mistake(("ws.protocols[%d] is no name: use letters, digits and signs such as . and -"):format(i))
    end
    if protocols[name] then mistake(("ws.protocols names '%s' twice"):format(name)) end
    protocols[i], protocols[name] = name, i
  end
  if not protocols[1] then mistake("ws.protocols is empty") end
  return protocols
end

-- The first of an endpoint's protocols that the client offers, and whether it must not go on without one.
local function choose(ctx, protocols)
  local offered, best = ctx:header("Sec-WebSocket-Protocol") or "", nil
  for name in offered:gmatch("[^,%s]+") do
    local place = type(protocols[name]) == "number" and protocols[name]
    if place and (not best or place < best) then best = place end
  end
  return best and protocols[best], protocols.required and not best
end

--- Runs the declaration of the endpoint with this number, and gives back what it declares.
local function declare(number, declaration, place)
  local listeners = {}
  local endpoint = { number = number, place = place, listeners = listeners }
  local is_declared = false

  local function check_declaring(what)
    if is_declared then mistake(what .. " is declared when the app loads, not in a handler") end
  end

  local listen = setmetatable({}, {
    __index = listeners,
    __newindex = function(_, name, handler)
      check_declaring("ws.listen." .. tostring(name))
      if type(name) ~= "string" then mistake("the type of a message is a string, not a " .. type(name)) end
      if type(handler) ~= "function" then
        mistake(("ws.listen.%s must be a function, not a %s"):format(name, type(handler)))
      end
      if listeners[name] then mistake(("ws.listen.%s is already declared"):format(name)) end
      listeners[name] = handler
    end,
    __call = function(_, topic) return native.subscribe(topic) end,
  })

  local send = setmetatable({}, {
    __index = function(_, name)
      if type(name) ~= "string" then mistake("the type of a message is a string, not a " .. type(name)) end
      return sender(number, JSON, name)
    end,
    __newindex = function() mistake("ws.send cannot be changed") end,
  })

  local own = {
    listen = listen,
    send = send,
    send_text = sender(number, TEXT),
    send_binary = sender(number, BINARY),
    unlisten = function(topic) return native.unsubscribe(topic) end,
    close = function(code, reason) return native.close(code, reason) end,
  }
  local ws = setmetatable({}, {
    __index = own,
    __newindex = function(_, name, value)
      if name == "protocols" then
        check_declaring("ws.protocols")
        endpoint.protocols = check_protocols(value)
        return
      end
      if name ~= "join" and name ~= "leave" then
        local known = "declare ws.join, ws.leave, ws.protocols and ws.listen.TYPE"
        mistake(("ws has no field '%s'; %s"):format(tostring(name), known))
      end
      check_declaring("ws." .. name)
      if type(value) ~= "function" then mistake(("ws.%s must be a function, not a %s"):format(name, type(value))) end
      if endpoint[name] then mistake(("ws.%s is already declared"):format(name)) end
      endpoint[name] = value
      own[name] = value
    end,
  })
  declaration(ws)
  is_declared = true
  return endpoint
end

--- The handler of the endpoint's path. `plain` answers what is no handshake.
local function handler(endpoint, plain)
  local open, number, place = native.open, endpoint.number, endpoint.place
  return function(ctx)
    local protocol, refuse
    if endpoint.protocols then protocol, refuse = choose(ctx, endpoint.protocols) end
    local status, value, accept = open(ctx, number, place, refuse)
    if status == 101 then
      local fields = { "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Accept", accept }
      if protocol then
        rawset(ctx, PROTOCOL, protocol)
        fields[7], fields[8] = "Sec-WebSocket-Protocol", protocol
      end
      return setmetatable({ STREAM, 101, value, fields }, Response)
    elseif not status then
      if plain then return plain(ctx) end
      return refusal(426, "this path speaks WebSocket"):header("Connection", "Upgrade"):header("Upgrade", "websocket")
    end
    local response = refusal(status, value)
    if status == 426 then
      response:header("Connection", "Upgrade"):header("Upgrade", "websocket"):header("Sec-WebSocket-Version", "13")
    end
    return response
  end
end

local by_number = {}

local function join(id, number, ctx)
  local endpoint = by_number[number]
  local client = { endpoint = endpoint, ctx = ctx }
  clients[id] = client
  if endpoint.join then client.state = endpoint.join(ctx) end
  client.joined = true
end

-- The handler for a text, and what it gets.
local function of_text(listeners, text)
  local message = decode(text)
  if type(message) == "table" then
    local name = message.type
    local own = type(name) == "string" and not OTHERS[name] and listeners[name] or listeners.message
    if own then return own, message end
  end
  return listeners.text, text
end

local function message(id, bytes, is_text)
  local client = clients[id]
  local listeners = client.endpoint.listeners
  local own, value = listeners.binary, bytes
  if is_text then own, value = of_text(listeners, bytes) end
  if not own then
    debug("no handler for a message to " .. client.endpoint.place)
    return
  end
  local state = own(value, client.ctx, client.state)
  if state ~= nil then client.state = state end
end

local function leave(id)
  local client = clients[id]
  clients[id] = nil
  if client and client.joined and client.endpoint.leave then client.endpoint.leave(client.state, client.ctx) end
end

native.handlers(join, message, leave)

return function(number, declaration, place)
  local endpoint = declare(number, declaration, place)
  by_number[number] = endpoint
  return endpoint
end, handler
