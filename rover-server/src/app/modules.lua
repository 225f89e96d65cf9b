-- Tells Rover which files `require` loads, so that a change of one can reload the app.
--
-- Comes in: `note`, which takes the name of a file. Goes out: nothing; the loader of Lua files notes what it finds.

local note = ...
local package = package
local loaders = package.loaders
local load_file = loaders[2]

loaders[2] = function(name)
  local file = package.searchpath(name, package.path)
  if file then note(file) end
  return load_file(name)
end
