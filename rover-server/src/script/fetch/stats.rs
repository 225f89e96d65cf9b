//! `stats()`: the figures of this worker's clients, as a table.

use rover_lua::{Returns, Stack};

use crate::outbound::Row;

use super::Fetch;

/// `stats(client)`: figures by origin; without a client, those tables by client.
pub(super) fn stats(stack: &mut Stack<'_>, fetch: &Fetch) -> Returns {
    let only = fetch.clients.get(stack, 1).map(|client| client.name().clone());
    let rows = fetch.figures.rows();
    match only {
        Some(name) => push_rows(stack, rows.iter().filter(|row| row.client == name)),
        None => {
            stack.push_table(0, 4);
            let clients = stack.top();
            for of_one in rows.chunk_by(|a, b| a.client == b.client) {
                stack.push_bytes(of_one[0].client.as_bytes());
                push_rows(stack, of_one.iter());
                stack.set_field(clients);
            }
        }
    }
    Ok(1)
}

fn push_rows<'r>(stack: &mut Stack<'_>, rows: impl Iterator<Item = &'r Row>) {
    stack.push_table(0, 4);
    let origins = stack.top();
    for row in rows {
        stack.push_bytes(row.origin.as_bytes());
        stack.push_table(0, 11);
        let figures = stack.top();
        stack.push_bytes(b"breaker");
        stack.push_bytes(row.breaker.name().as_bytes());
        stack.set_field(figures);
        for (name, number) in row.numbers() {
            stack.push_bytes(name.as_bytes());
            stack.push_number(number as f64);
            stack.set_field(figures);
        }
        stack.set_field(origins);
    }
}
