//! Rows as tables on their way into a database: `insert`, `update`, `delete`. Names are quoted, values are values.

use std::fmt::Write;
use std::rc::Rc;

use mlua::{Lua, Table};
use rover_data::{Argument, Value};

use super::calls::{Form, send};
use super::{Databases, Target, outcome};
use rover_lua::{Kind, Raise, Returns, Shared, Stack, Waits};

/// Adds the methods.
pub(super) fn install(lua: &Lua, shared: &Shared<Databases>, waits: &Rc<Waits>, methods: &Table) -> mlua::Result<()> {
    methods.raw_set("insert", waits.waiting(lua, shared.function(lua, insert)?)?)?;
    methods.raw_set("update", waits.waiting(lua, shared.function(lua, update)?)?)?;
    methods.raw_set("delete", waits.waiting(lua, shared.function(lua, delete)?)?)
}

/// A name as SQL has it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The table's name at 2: `users`, or `main.users`.
fn table_name(stack: &Stack<'_>, call: &str) -> Result<String, Raise> {
    let name = stack.bytes(2).and_then(|name| std::str::from_utf8(name).ok());
    match name {
        Some(name) if !name.is_empty() && !name.contains('\0') => {
            Ok(name.split('.').map(quoted).collect::<Vec<_>>().join("."))
        }
        Some(_) => Err(Raise::Mistake(format!("db:{call} expects the name of a table"))),
        None => {
            let kind = stack.kind(2).name();
            Err(Raise::Mistake(format!("db:{call} expects the name of a table as a string, not {kind}")))
        }
    }
}

type Fields = Vec<(String, Argument)>;

impl Databases {
    /// The fields of the table at `index`, in the order of their names, so that the same fields make the same text.
    fn fields(&self, stack: &mut Stack<'_>, index: i32, call: &str, what: &str) -> Result<Fields, Raise> {
        if stack.kind(index) != Kind::Table {
            let kind = stack.kind(index).name();
            return Err(Raise::Mistake(format!("db:{call} expects {what} as a table, not {kind}")));
        }
        let mut fields = Fields::new();
        let bottom = stack.top();
        stack.push_nil();
        while stack.next(index) {
            let (key, value) = (bottom + 1, bottom + 2);
            let name = match stack.kind(key) {
                Kind::String => stack.bytes(key).and_then(|name| std::str::from_utf8(name).ok()).map(str::to_owned),
                _ => None,
            };
            let Some(name) = name.filter(|name| !name.contains('\0')) else {
                return Err(Raise::Mistake(format!("db:{call}: the keys of {what} must be names of columns")));
            };
            let argument = self.argument(stack, value, || format!("{what}.{name}"))?;
            fields.push((name, argument));
            stack.truncate(key);
        }
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(fields)
    }

    /// Runs what has been put together.
    fn send(
        &self,
        stack: &mut Stack<'_>,
        target: Target,
        (sql, values): (&str, Vec<Argument>),
        name: &'static str,
        form: Form,
    ) -> Returns {
        let sql = self.read(sql, target.database().dialect()).map_err(|error| outcome::mistake(&error))?;
        let statement = sql.with(values).map_err(|error| outcome::mistake(&error))?;
        send(stack, self, target, statement, name, form)
    }
}

/// No field of a row stands for several values.
fn no_list(fields: &Fields, call: &str) -> Result<(), Raise> {
    match fields.iter().find(|(_, value)| matches!(value, Argument::List(_))) {
        Some((name, _)) => Err(Raise::Mistake(format!("db:{call}: {name} is a list, which a column cannot hold"))),
        None => Ok(()),
    }
}

/// Writes the conditions of `fields`, and gives their values.
fn condition(sql: &mut String, fields: Fields, call: &str) -> Result<Vec<Argument>, Raise> {
    if fields.is_empty() {
        return Err(Raise::Mistake(format!(
            "db:{call} expects conditions, and this table has none: it would {call} every row (a field that is nil is no \
             field; rover.null asks for NULL). Write db:exec(\"{call} …\") where that is meant"
        )));
    }
    let mut values = Vec::with_capacity(fields.len());
    for (n, (name, value)) in fields.into_iter().enumerate() {
        let _ = write!(sql, "{}{}", if n == 0 { " where " } else { " and " }, quoted(&name));
        match value {
            Argument::One(Value::Null) => sql.push_str(" is null"),
            Argument::One(value) => {
                sql.push_str(" = ?");
                values.push(Argument::One(value));
            }
            list @ Argument::List(_) => {
                sql.push_str(" in (?)");
                values.push(list);
            }
        }
    }
    Ok(values)
}

/// `insert(table, row[, { on_conflict }])` → the row as it is stored.
fn insert(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let target = databases.target(stack, "insert")?;
    let table = table_name(stack, "insert")?;
    let fields = databases.fields(stack, 3, "insert", "row")?;
    no_list(&fields, "insert")?;
    let conflict = on_conflict(stack, &fields)?;
    let mut sql = format!("insert into {table}");
    if fields.is_empty() {
        sql.push_str(" default values");
    } else {
        let names: Vec<String> = fields.iter().map(|(name, _)| quoted(name)).collect();
        let places = vec!["?"; fields.len()].join(", ");
        let _ = write!(sql, " ({}) values ({places})", names.join(", "));
    }
    sql.push_str(&conflict);
    sql.push_str(" returning *");
    let values = fields.into_iter().map(|(_, value)| value).collect();
    databases.send(stack, target, (&sql, values), "db:insert", Form::One)
}

/// What is done about a row that is there already: `on_conflict = "nothing"`, or the columns by which it is known and which
/// the others replace.
fn on_conflict(stack: &mut Stack<'_>, fields: &Fields) -> Result<String, Raise> {
    let wrong = || {
        Raise::mistake(
            "db:insert: on_conflict must be \"nothing\", or a table of the columns by which a row is known, such as { \"email\" }",
        )
    };
    match stack.kind(4) {
        Kind::Nil => return Ok(String::new()),
        Kind::Table => {}
        kind => return Err(Raise::Mistake(format!("db:insert expects a table of options, not {}", kind.name()))),
    }
    let top = stack.top();
    stack.push_nil();
    while stack.next(4) {
        if stack.bytes(top + 1) != Some(b"on_conflict") {
            return Err(Raise::mistake("db:insert has one option: on_conflict"));
        }
        stack.truncate(top + 1);
    }
    stack.push_bytes(b"on_conflict");
    stack.get_field(4);
    let index = top + 1;
    let clause = match stack.kind(index) {
        Kind::Nil => String::new(),
        Kind::String if stack.bytes(index) == Some(b"nothing") => " on conflict do nothing".to_owned(),
        Kind::Table => {
            let mut keys = Vec::new();
            for n in 1..=stack.raw_len(index) {
                stack.push_item(index, n as i32);
                let name = stack.bytes(index + 1).and_then(|name| std::str::from_utf8(name).ok()).map(str::to_owned);
                keys.push(name.filter(|name| !name.contains('\0')).ok_or_else(wrong)?);
                stack.truncate(index);
            }
            if keys.is_empty() {
                return Err(wrong());
            }
            let others: Vec<String> = fields
                .iter()
                .filter(|(name, _)| !keys.contains(name))
                .map(|(name, _)| format!("{0} = excluded.{0}", quoted(name)))
                .collect();
            let keys: Vec<String> = keys.iter().map(|key| quoted(key)).collect();
            match others.is_empty() {
                true => format!(" on conflict ({}) do nothing", keys.join(", ")),
                false => format!(" on conflict ({}) do update set {}", keys.join(", "), others.join(", ")),
            }
        }
        _ => return Err(wrong()),
    };
    stack.truncate(top);
    Ok(clause)
}

/// `update(table, values, where)` → how many rows.
fn update(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let target = databases.target(stack, "update")?;
    let table = table_name(stack, "update")?;
    let fields = databases.fields(stack, 3, "update", "values")?;
    no_list(&fields, "update")?;
    if fields.is_empty() {
        return Err(Raise::mistake("db:update expects at least one value"));
    }
    let conditions = databases.fields(stack, 4, "update", "where")?;
    let set: Vec<String> = fields.iter().map(|(name, _)| format!("{} = ?", quoted(name))).collect();
    let mut sql = format!("update {table} set {}", set.join(", "));
    let mut values: Vec<Argument> = fields.into_iter().map(|(_, value)| value).collect();
    values.extend(condition(&mut sql, conditions, "update")?);
    databases.send(stack, target, (&sql, values), "db:update", Form::Affected)
}

/// `delete(table, where)` → how many rows.
fn delete(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let target = databases.target(stack, "delete")?;
    let table = table_name(stack, "delete")?;
    let conditions = databases.fields(stack, 3, "delete", "where")?;
    let mut sql = format!("delete from {table}");
    let values = condition(&mut sql, conditions, "delete")?;
    databases.send(stack, target, (&sql, values), "db:delete", Form::Affected)
}
