-- Files, twice: from a mount, and by the handler that one writes first. The folder is in STATIC_FOLDER.
local folder = rover.env.STATIC_FOLDER
local api = rover.server { access_log = false }

api.mount.static { dir = folder }

function api.naive.p_name.get(ctx)
  local file = assert(io.open(folder .. "/" .. ctx:params().name, "rb"))
  local bytes = file:read("*a")
  file:close()
  return api.raw(bytes):header("Content-Type", "application/octet-stream")
end

return api
