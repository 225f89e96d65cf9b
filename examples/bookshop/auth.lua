-- Who may change the shop. A token comes in the header `Authorization: Bearer …` or in the cookie `session`.
local auth = {}

local PASSWORD = rover.env.BOOKSHOP_PASSWORD or "open sesame"

-- token -> name; as the books in store.lua, in this VM's memory.
local sessions = {}

local function random_token()
  local source = assert(io.open("/dev/urandom", "rb"))
  local bytes = source:read(16)
  source:close()
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local function token_of(ctx)
  local header = ctx:header("Authorization")
  return header and header:match("^Bearer (%x+)$") or ctx:cookie("session")
end

--- Begins a session: its token, or nil where the password is wrong.
function auth.begin(name, password)
  if password ~= PASSWORD then return nil end
  local token = random_token()
  sessions[token] = name
  return token
end

function auth.finish(ctx)
  local token = token_of(ctx)
  if token then sessions[token] = nil end
end

--- A `before` hook that lets only known users change something. They are then `ctx:get("user")`.
function auth.for_changes(api)
  return function(ctx)
    if ctx.method == "GET" or ctx.method == "HEAD" then return end
    local token = token_of(ctx)
    local user = token and sessions[token]
    if not user then return api:error(401, "log in first"):header("WWW-Authenticate", "Bearer") end
    ctx:set("user", user)
  end
end

return auth
