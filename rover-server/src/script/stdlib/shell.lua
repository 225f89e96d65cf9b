-- Gives what `io.popen` and `os.execute` start the limit of descriptors that the server was started with: the server has
-- raised its own, and a shell inherits that.
--
-- Comes in: the limit. Goes out: nothing; both functions put a line in front of the command.

local most = ...
local io, os, type = io, os, type
local popen, execute = io.popen, os.execute
local first_line = ("ulimit -Sn %.0f 2>/dev/null\n"):format(most)

function io.popen(command, ...)
  if type(command) == "string" then command = first_line .. command end
  return popen(command, ...)
end

function os.execute(command)
  if type(command) == "string" then command = first_line .. command end
  return execute(command)
end
