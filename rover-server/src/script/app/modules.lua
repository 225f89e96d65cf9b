-- Has `require` load the Lua files of the app's version, which stay as they were when the version first read them; and tells
-- Rover which files these are, so that a change of one can reload the app. A module that has failed is tried again.
--
-- Comes in: `known`, which gives the file and the code that the version has for a module; `keep`, which takes a module and
-- its file and gives the code; `note`, which takes the name of a file; `is_loaded`, which tells whether the app's top level has
-- run; `mistake`, which raises at the line of the app. Goes out: nothing; the loader of Lua files asks them, and where it finds
-- nothing, notes each name that it has looked for: one that is made later can reload the app too.

local known, keep, note, is_loaded, mistake = ...
local error, ipairs, load, open, package, require, type = error, ipairs, load, io.open, package, require, type
local getinfo, loaded, loaders = debug.getinfo, package.loaded, package.loaders
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
          mistake(("cannot look for module '%s': %s"):format(name, problem))
        end
      end
    end
  end
  -- Says where it has looked, or why it cannot read the file.
  if not code then return load_file(name) end
  local chunk, problem = load(code, "@" .. file)
  if not chunk then mistake(("error loading module '%s' from file '%s':\n\t%s"):format(name, file, problem)) end
  return chunk
end

-- What stands for a module while it is being loaded, and for ever where that has failed.
local sentinel
package.preload["rover sentinel"] = function(name) sentinel = loaded[name] end
require("rover sentinel")
package.preload["rover sentinel"], loaded["rover sentinel"] = nil, nil

-- By module: the function that loads it.
local running = {}

for place, loader in ipairs(loaders) do
  loaders[place] = function(name)
    local run, extra = loader(name)
    if type(run) ~= "function" then return run, extra end
    local function kept(...)
      -- Not a tail call: that it stands on the call stack tells that the module is being loaded.
      local value = run(...)
      running[name] = nil
      return value
    end
    running[name] = kept
    return kept, extra
  end
end

local function is_running(run)
  for level = 1, math.huge do
    local info = getinfo(level, "f")
    if not info then return false end
    if info.func == run then return true end
  end
end

-- As Lua's own, which is a C function: code that one has called cannot be cut into slices. Afterwards Lua's own is used again,
-- through which no call can wait, so that nobody finds a module that is half loaded.
local function load_module(name)
  local problems = ""
  for _, find in ipairs(package.loaders) do
    local found = find(name)
    if type(found) == "function" then
      local result = found(name)
      if result ~= nil then loaded[name] = result end
      if loaded[name] == nil then loaded[name] = true end
      return loaded[name]
    end
    if type(found) == "string" then problems = problems .. found end
  end
  error(("module '%s' not found:%s"):format(name, problems), 3)
end

-- Lua's own says "loop or previous error" of a module that has failed, and not what went wrong. This one tries again.
function _G.require(name, ...)
  local run = running[name]
  if is_loaded() or type(name) ~= "string" then
    if run and loaded[name] == sentinel and not is_running(run) then loaded[name] = nil end
    return require(name, ...)
  end
  local known = loaded[name]
  if known then return known end
  if run and is_running(run) then error(("loop or previous error loading module '%s'"):format(name), 2) end
  local result = load_module(name)
  return result
end
