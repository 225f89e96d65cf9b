-- Has `require` load the Lua files of the app's version, which stay as they were when the version first read them; and tells
-- Rover which files these are, so that a change of one can reload the app.
--
-- Comes in: `known`, which gives the file and the code that the version has for a module; `keep`, which takes a module and
-- its file and gives the code; `note`, which takes the name of a file; `is_loaded`, which tells whether the app's top level has
-- run. Goes out: nothing; the loader of Lua files asks them,
-- and where it finds nothing, notes each name that it has looked for: one that is made later can reload the app too.

local known, keep, note, is_loaded = ...
local error, ipairs, load, open, package, require, type = error, ipairs, load, io.open, package, require, type
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

-- As Lua's own, which is a C function: code that one has called cannot be cut into slices. Afterwards Lua's own is used again,
-- through which no call can wait, so that nobody finds a module that is half loaded.
local loading = {}

local function load_module(name)
  local loaded, problems = package.loaded, ""
  for _, find in ipairs(package.loaders) do
    local found = find(name)
    if type(found) == "function" then
      loading[name] = true
      local result = found(name)
      loading[name] = nil
      if result ~= nil then loaded[name] = result end
      if loaded[name] == nil then loaded[name] = true end
      return loaded[name]
    end
    if type(found) == "string" then problems = problems .. found end
  end
  error(("module '%s' not found:%s"):format(name, problems), 3)
end

function _G.require(name, ...)
  if is_loaded() or type(name) ~= "string" then return require(name, ...) end
  local known = package.loaded[name]
  if known then return known end
  if loading[name] then error(("loop or previous error loading module '%s'"):format(name), 2) end
  local result = load_module(name)
  return result
end
