-- A chat in rooms, over WebSockets: `rover examples/chat.lua`, then open http://localhost:4242/#tea in two tabs.

local api = rover.server {}

local PAGE = [[
<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem; }
  #log { list-style: none; padding: 0; min-height: 12rem; }
  #log .note { color: #777; font-style: italic; }
  form { display: flex; gap: .5rem; }
  #text { flex: 1; }
  input, button { font: inherit; padding: .25rem .5rem; }
</style>
<h1>Chat: <span id="room"></span></h1>
<ul id="log"></ul>
<form id="form"><input id="text" autocomplete="off" placeholder="Say something" autofocus><button>Send</button></form>
<script>
  const room = decodeURIComponent(location.hash.slice(1)) || "lobby";
  const name = new URLSearchParams(location.search).get("name") || "guest " + Math.floor(Math.random() * 1000);
  document.getElementById("room").textContent = room;
  const log = document.getElementById("log");
  const show = (text, kind) => {
    const item = log.appendChild(document.createElement("li"));
    item.textContent = text;
    item.className = kind;
  };
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const address = `${scheme}://${location.host}/chat/${encodeURIComponent(room)}?name=${encodeURIComponent(name)}`;
  let socket;
  const connect = () => {
    socket = new WebSocket(address);
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "said") show(`${message.name}: ${message.text}`, "said");
      if (message.type === "joined") show(`${message.name} is here`, "note");
      if (message.type === "left") show(`${message.name} has left`, "note");
    };
    socket.onclose = () => setTimeout(connect, 1000);
  };
  connect();
  document.getElementById("form").onsubmit = (event) => {
    event.preventDefault();
    const text = document.getElementById("text");
    if (text.value) socket.send(JSON.stringify({ type: "say", text: text.value }));
    text.value = "";
  };
</script>
]]

function api.get(ctx) return api.html(PAGE) end

function api.chat.p_room.ws(ws)
  function ws.join(ctx)
    local state = { name = (ctx:query().name or "guest"):sub(1, 40), topic = "room:" .. ctx:params().room }
    ws.listen(state.topic)
    ws.send.joined():to(state.topic) { name = state.name }
    return state
  end

  function ws.listen.say(msg, ctx, state)
    if type(msg.text) ~= "string" or #msg.text > 1000 then return ws.close(1008, "text is a string of at most 1000 bytes") end
    ws.send.said():to(state.topic) { name = state.name, text = msg.text }
  end

  function ws.leave(state)
    ws.send.left():to(state.topic) { name = state.name }
  end
end

-- The same room from elsewhere: curl -d '{"name":"robot","text":"hello"}' -H 'content-type: application/json' …/say/tea
function api.say.p_room.post(ctx)
  local message = ctx:json()
  rover.publish("room:" .. ctx:params().room, "said", { name = message.name, text = message.text })
  return api.no_content()
end

return api
