-- Tells Rover which files `require` loads, so that a change of one can reload the app.
--
-- Comes in: `note`, which takes the name of a file. Goes out: nothing; the loader of Lua files notes what it finds, and
-- where it finds nothing, each name that it has looked for: one that is made later can reload the app too.

local note = ...
local package = package
local loaders = package.loaders
local load_file = loaders[2]
local gmatch, gsub = string.gmatch, string.gsub

loaders[2] = function(name)
  local path = package.path
  local file = package.searchpath(name, path)
  if file then
    note(file)
  else
    local part = gsub(name, "%.", "/")
    for template in gmatch(path, "[^;]+") do
      note((gsub(template, "%?", function() return part end)))
    end
  end
  return load_file(name)
end
