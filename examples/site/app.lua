-- A small site: files from a folder, a little API beside them. `rover examples/site/app.lua`, then open
-- http://localhost:4242.
-- One worker, for the entries below are in a local, of which each worker has its own.
local api = rover.server { workers = 1, compression = { enabled = true } }

-- Everything in public/ at the root of the site. What is not there, such as /guestbook, is a page that the script shows.
api.static { dir = "public", fallback = "index.html" }

local entries = {}

function api.entries.get(ctx) return rover.array(entries) end

function api.entries.post(ctx)
  local entry = ctx:json()
  if type(entry) ~= "table" or type(entry.text) ~= "string" or entry.text == "" then
    return api:error(422, "text must be a string that is not empty")
  end
  if #entries == 100 then table.remove(entries, 1) end
  entries[#entries + 1] = { text = entry.text, time = math.floor(rover.time()) }
  return api.json:status(201, entries[#entries])
end

return api
