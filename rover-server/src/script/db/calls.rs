//! Statements as an app writes them: `query`, `one`, `value`, `column`, `exec`, `batch`.

use std::rc::Rc;

use mlua::{Lua, Table};
use rover_data::{Answer, Statement};

use super::{Databases, Target};
use rover_lua::{Kind, Raise, Returns, Shared, Stack, Waits};

/// What a call gives of an answer.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// All rows.
    Rows,
    /// The first row or nil.
    One,
    /// Its first column.
    Value,
    /// The first column of all rows.
    Column,
    /// `{ affected, id }`.
    Done,
    /// How many rows were affected.
    Affected,
}

/// Adds the methods.
pub(super) fn install(lua: &Lua, shared: &Shared<Databases>, waits: &Rc<Waits>, methods: &Table) -> mlua::Result<()> {
    let query = shared.function(lua, |stack, databases| ask(stack, databases, "query", "db:query", Form::Rows))?;
    let one = shared.function(lua, |stack, databases| ask(stack, databases, "one", "db:one", Form::One))?;
    let value = shared.function(lua, |stack, databases| ask(stack, databases, "value", "db:value", Form::Value))?;
    let column = shared.function(lua, |stack, databases| ask(stack, databases, "column", "db:column", Form::Column))?;
    let exec = shared.function(lua, |stack, databases| ask(stack, databases, "exec", "db:exec", Form::Done))?;
    let all = [("query", query), ("one", one), ("value", value), ("column", column), ("exec", exec)];
    for (name, function) in all {
        methods.raw_set(name, waits.waiting(lua, function)?)?;
    }
    methods.raw_set("batch", waits.waiting(lua, shared.function(lua, batch)?)?)
}

/// Runs the statement of the arguments.
fn ask(stack: &mut Stack<'_>, databases: &Databases, call: &str, name: &'static str, form: Form) -> Returns {
    let target = databases.target(stack, call)?;
    let statement = databases.statement(stack, &target, call)?;
    send(stack, databases, target, statement, name, form)
}

/// Runs a statement, and waits for what it brings.
pub(super) fn send(
    stack: &mut Stack<'_>,
    databases: &Databases,
    target: Target,
    statement: Statement,
    name: &'static str,
    form: Form,
) -> Returns {
    let (sql, slow) = (statement.sql().clone(), target.database().settings().slow);
    let work = async move { target.run(statement).await };
    databases.wait(stack, name, work, move |databases, stack, answer| {
        databases.told_if_slow(stack, sql.source(), answer.took, slow);
        databases.push(stack, &answer, form)
    })
}

impl Databases {
    /// Pushes what is wanted of an answer.
    fn push(&self, stack: &mut Stack<'_>, answer: &Answer, form: Form) -> Returns {
        let rows = &answer.rows;
        match form {
            Form::Rows => self.push_rows(stack, rows)?,
            Form::One if rows.is_empty() => stack.push_nil(),
            Form::One => self.push_row(stack, rows, 0)?,
            Form::Value => self.push_datum(stack, rows.get(0, 0)),
            Form::Column => {
                self.vocabulary.push_array(stack, rows.len());
                let array = stack.top();
                for row in 0..rows.len() {
                    match rows.get(row, 0) {
                        // A hole would end the array.
                        rover_data::Datum::Null => stack.push_null(),
                        datum => self.push_datum(stack, datum),
                    }
                    stack.set_item(array, i32::try_from(row + 1).unwrap_or(i32::MAX));
                }
            }
            Form::Affected => stack.push_number(answer.affected as f64),
            Form::Done => {
                stack.push_table(0, 2);
                let table = stack.top();
                stack.push_bytes(b"affected");
                stack.push_number(answer.affected as f64);
                stack.set_field(table);
                if let Some(id) = answer.id {
                    stack.push_bytes(b"id");
                    self.push_datum(stack, rover_data::Datum::Integer(id));
                    stack.set_field(table);
                }
            }
        }
        Ok(1)
    }
}

/// `batch { { sql, … }, … }` → the results in order.
fn batch(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    /// Beyond it something else is meant.
    const MOST: usize = 10_000;
    let target = databases.target(stack, "batch")?;
    if stack.kind(2) != Kind::Table {
        let kind = stack.kind(2).name();
        return Err(Raise::Mistake(format!("db:batch expects a table of {{ sql, … }}, not {kind}")));
    }
    let length = stack.raw_len(2);
    if length > MOST {
        return Err(Raise::Mistake(format!("db:batch takes at most {MOST} statements")));
    }
    let mut statements = Vec::with_capacity(length);
    let bottom = stack.top();
    for n in 1..=length {
        stack.push_item(2, n as i32);
        let item = bottom + 1;
        if stack.kind(item) != Kind::Table {
            let kind = stack.kind(item).name();
            return Err(Raise::Mistake(format!("db:batch: statement {n} must be a table {{ sql, … }}, not {kind}")));
        }
        stack.push_item(item, 1);
        let sql = databases.text(stack, &target, item + 1, "batch")?;
        // As many values as the statement needs, for a nil among them hides how many there are.
        let count = if sql.names().is_empty() { sql.count().max(stack.raw_len(item).saturating_sub(1)) } else { 1 };
        if !stack.reserve(i32::try_from(count).unwrap_or(i32::MAX)) {
            return Err(Raise::Mistake(format!("db:batch: statement {n} has too many values")));
        }
        for value in 0..count {
            stack.push_item(item, value as i32 + 2);
        }
        let last = stack.top();
        statements.push(databases.fill(stack, &sql, item + 2, last, "batch")?);
        stack.truncate(bottom);
    }
    let work = async move { target.batch(statements).await };
    databases.wait(stack, "db:batch", work, |databases, stack, answers| {
        databases.vocabulary.push_array(stack, answers.len());
        let array = stack.top();
        for (n, answer) in (1..).zip(&answers) {
            let form = if answer.rows.columns().is_empty() { Form::Done } else { Form::Rows };
            databases.push(stack, answer, form)?;
            stack.set_item(array, n);
        }
        Ok(1)
    })
}
