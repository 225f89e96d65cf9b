//! The types of Lua values.

/// The type of a Lua value, as `type()` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing at that index, or nil.
    Nil,
    /// `true` or `false`.
    Boolean,
    /// A pointer without identity of its own; the null pointer is `rover.null`.
    LightUserdata,
    /// A double.
    Number,
    /// Bytes.
    String,
    /// A table.
    Table,
    /// A function of Lua, or a native one.
    Function,
    /// A full userdata.
    Userdata,
    /// A coroutine.
    Thread,
    /// A LuaJIT FFI object.
    Cdata,
}

impl Kind {
    /// The name a Lua author knows.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Nil => "nil",
            Kind::Boolean => "boolean",
            Kind::LightUserdata | Kind::Userdata => "userdata",
            Kind::Number => "number",
            Kind::String => "string",
            Kind::Table => "table",
            Kind::Function => "function",
            Kind::Thread => "thread",
            Kind::Cdata => "cdata",
        }
    }
}
