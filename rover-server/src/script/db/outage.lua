-- The metatable of errors that tell of a database that cannot answer: as text they are the message, and Rover answers 503.

return {
  __name = "outage",
  __unavailable = true,
  __tostring = function(self)
    return self.message
  end,
}
