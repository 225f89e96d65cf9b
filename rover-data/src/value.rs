//! Values on their way into a statement.

/// A value for one placeholder.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// A boolean; SQLite keeps 0 and 1.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A number.
    Real(f64),
    /// Text, UTF-8 as a rule.
    Text(Box<[u8]>),
    /// Bytes.
    Blob(Box<[u8]>),
}

impl Value {
    /// Text.
    pub fn text(text: impl AsRef<[u8]>) -> Value {
        Value::Text(text.as_ref().into())
    }
}

/// What a caller gives for one placeholder.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// One value.
    One(Value),
    /// A list, which stands for `(?)` after `in`.
    List(Vec<Value>),
}

impl From<Value> for Argument {
    fn from(value: Value) -> Argument {
        Argument::One(value)
    }
}
