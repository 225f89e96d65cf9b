-- Server-sent events: `rover examples/sse.lua`, then open http://localhost:4242 or `curl -N localhost:4242/ticks`.

local api = rover.server {}

local PAGE = [[
<!doctype html>
<meta charset="utf-8">
<title>Ticks</title>
<h1>Ticks</h1>
<ol id="ticks"></ol>
<script>
  const list = document.getElementById("ticks");
  const source = new EventSource("/ticks");
  source.addEventListener("tick", (event) => {
    const item = list.appendChild(document.createElement("li"));
    item.textContent = event.lastEventId + ": " + event.data;
  });
</script>
]]

function api.get(ctx) return api.html(PAGE) end

-- A tick every second. A browser that connects again says which tick it saw last, and goes on behind it.
function api.ticks.get(ctx)
  local n = tonumber(ctx:header("last-event-id")) or 0
  return api.sse(function()
    rover.sleep(1)
    n = n + 1
    return { event = "tick", id = n, data = os.date("!%H:%M:%S") }
  end, 2000)
end

-- A stream that is no event stream: a table as CSV, a row at a time.
api["squares.csv"].get = function(ctx)
  local n = 0
  return api.stream(200, "text/csv", function()
    n = n + 1
    if n <= 1000 then return ("%d,%d\n"):format(n, n * n) end
  end)
end

return api
