//! The figures of this worker's clients: for `stats()`, as a table, and for the metrics.

use rover_lua::{Returns, Stack};

use crate::observe::metrics::Samples;
use crate::outbound::{BreakerState, Figures, Row};

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

/// Notes what is counted of requests to other servers.
pub(super) fn count(figures: &Figures, samples: &mut Samples) {
    for row in figures.rows() {
        let labels = [("client", &*row.client), ("origin", &*row.origin)];
        let help = "Connections to other servers that are open.";
        samples.gauge("rover_outbound_connections", help, &labels, row.open as f64);
        let help = "Connections to other servers that wait for use.";
        samples.gauge("rover_outbound_idle_connections", help, &labels, row.idle as f64);
        let help = "Requests to other servers in progress.";
        samples.gauge("rover_outbound_active_requests", help, &labels, row.active as f64);
        let help = "Requests to other servers that wait for their turn.";
        samples.gauge("rover_outbound_queued_requests", help, &labels, row.queued as f64);
        let help = "Workers whose circuit to the other server is not closed.";
        let is_broken = row.breaker != BreakerState::Closed;
        samples.gauge("rover_outbound_broken_circuits", help, &labels, f64::from(u8::from(is_broken)));
        let help = "Requests sent to other servers, each attempt counted.";
        samples.counter("rover_outbound_requests_total", help, &labels, row.requests as f64);
        let help = "Requests to other servers that failed: no answer, or a status from 500 on.";
        samples.counter("rover_outbound_failures_total", help, &labels, row.failures as f64);
        let help = "Requests to other servers that repeated another.";
        samples.counter("rover_outbound_retries_total", help, &labels, row.retries as f64);
        let help = "Requests to other servers that were refused without being sent.";
        samples.counter("rover_outbound_rejected_total", help, &labels, row.rejected as f64);
    }
}
