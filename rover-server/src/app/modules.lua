-- Has `require` load the Lua files of the app's version, which stay as they were when the version first read them; and tells
-- Rover which files these are, so that a change of one can reload the app.
--
-- Comes in: `known`, which gives the file and the code that the version has for a module; `keep`, which takes a module and
-- its file and gives the code; `note`, which takes the name of a file. Goes out: nothing; the loader of Lua files asks them,
-- and where it finds nothing, notes each name that it has looked for: one that is made later can reload the app too.

local known, keep, note = ...
local error, load, open, package = error, load, io.open, package
local loaders = package.loaders
local load_file = loaders[2]
local gmatch, gsub = string.gmatch, string.gsub

-- What the system says of files that are not there, or that nobody may read: ENOENT, EACCES, ENOTDIR, ENAMETOOLONG, ELOOP. Anything
-- else, such as that no descriptor is left, tells nothing of the file.
local missing = { [2] = true, [13] = true, [20] = true, [36] = true, [40] = true }

loaders[2] = function(name)
  local file, code = known(name)
  if not file then
    local path = package.path
    file = package.searchpath(name, path)
    if file then
      code = keep(name, file)
    else
      local part = gsub(name, "%.", "/")
      for template in gmatch(path, "[^;]+") do
        local candidate = gsub(template, "%?", function() return part end)
        note(candidate)
        local found, problem, number = open(candidate)
        if found then
          found:close()
        elseif not missing[number] then
          error(("cannot look for module '%s': %s"):format(name, problem), 0)
        end
      end
    end
  end
  -- Says where it has looked, or why it cannot read the file.
  if not code then return load_file(name) end
  local chunk, problem = load(code, "@" .. file)
  if not chunk then error(("error loading module '%s' from file '%s':\n\t%s"):format(name, file, problem), 0) end
  return chunk
end
