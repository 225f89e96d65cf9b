-- The workloads of tests/perf for nginx with its Lua module: the same answers as rover.lua.
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

local names = {}
for i = 1, 100 do names[i] = ("Item %d <fresh> & \"ripe\", it's"):format(i) end

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#x27;" }

function app.html()
  local page = {
    "<!DOCTYPE html><html><head><title>Items</title></head><body><table>",
    "<tr><th>id</th><th>name</th><th>price</th></tr>",
  }
  for id, name in ipairs(names) do
    local escaped = name:gsub("[&<>\"']", entities)
    page[#page + 1] = ("<tr><td>%d</td><td>%s</td><td>%.2f</td></tr>"):format(id, escaped, id * 1.5)
  end
  page[#page + 1] = "</table></body></html>"
  answer("text/html; charset=utf-8", table.concat(page))
end

local hundred_kilobytes = ("0123456789abcdef"):rep(6400)

function app.body100k() text(hundred_kilobytes) end

local function element(i, j) return 1 / ((i + j) * (i + j + 1) / 2 + i + 1) end

local function times(x, y, n)
  for i = 0, n - 1 do
    local sum = 0
    for j = 0, n - 1 do sum = sum + element(i, j) * x[j] end
    y[i] = sum
  end
end

local function times_transposed(x, y, n)
  for i = 0, n - 1 do
    local sum = 0
    for j = 0, n - 1 do sum = sum + element(j, i) * x[j] end
    y[i] = sum
  end
end

local function spectral_norm(n)
  local u, v, t = {}, {}, {}
  for i = 0, n - 1 do u[i] = 1 end
  for _ = 1, 10 do
    times(u, t, n)
    times_transposed(t, v, n)
    times(v, t, n)
    times_transposed(t, u, n)
  end
  local uv, vv = 0, 0
  for i = 0, n - 1 do
    uv = uv + u[i] * v[i]
    vv = vv + v[i] * v[i]
  end
  return math.sqrt(uv / vv)
end

function app.cpu() text(("%.9f"):format(spectral_norm(100))) end

return app
