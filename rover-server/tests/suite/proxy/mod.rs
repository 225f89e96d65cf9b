//! Requests that an app passes on: `ctx:proxy` and `api.proxy`.

mod framing;
mod interim;
mod requests;
mod uploads;
