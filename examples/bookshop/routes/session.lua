-- POST /session, DELETE /session
local auth = require "auth"

return function(api)
  function api.session.post(ctx)
    local login = ctx:json()
    if type(login) ~= "table" or type(login.name) ~= "string" then
      return api:error(422, "send your name and the password")
    end
    local token = auth.begin(login.name, login.password)
    if not token then return api:error(401, "wrong password") end
    return api.json:status(201, { token = token })
      :cookie("session", token, { path = "/", http_only = true, same_site = "Strict", max_age = 3600 })
  end

  function api.session.delete(ctx)
    auth.finish(ctx)
    return api.no_content():cookie("session", "", { path = "/", max_age = 0 })
  end
end
