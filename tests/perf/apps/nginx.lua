-- The workloads of tests/perf for nginx with its Lua module: the same answers as rover.lua.
local work = require "work"
local cjson = require "cjson"

local app = {}

local function answer(content_type, body)
  local header = ngx.header
  header["Content-Type"] = content_type
  header["Content-Length"] = #body
  ngx.print(body)
end

local function text(body) return answer("text/plain; charset=utf-8", body) end

local function json(value) return answer("application/json", cjson.encode(value)) end

local function body()
  ngx.req.read_body()
  return cjson.decode(ngx.req.get_body_data())
end

function app.plaintext() text("Hello, World!") end

function app.message() json { message = "Hello, World!" } end

function app.echo()
  if ngx.req.get_method() == "POST" then return json(body()) end
  json { message = ngx.req.get_uri_args().message }
end

-- ngx.var.uri is the decoded path.
function app.echo_params()
  local m = ngx.re.match(ngx.var.uri, "^/echo/([^/]+)/([^/]+)$", "jo")
  json { name = m[1], id = m[2] }
end

function app.update()
  local order = body()
  order.revision = order.revision + 1
  json(order)
end

function app.item()
  local m = ngx.re.match(ngx.var.uri, "^/api/v1/res[0-9]+/([^/]+)/items/([^/]+)$", "jo")
  json {
    id = m[1],
    item = m[2],
    q = ngx.req.get_uri_args().q,
    lang = ngx.var.http_accept_language,
    client = ngx.var.http_x_client,
  }
end

function app.html() answer("text/html; charset=utf-8", work.page()) end

function app.body100k() text(work.hundred_kilobytes) end

function app.cpu() text(work.cpu()) end

return app
