//! `ctx:params()`: the values of the path parameters, and what their table looks like.
//!
//! Routes with the same parameter names share a *shape*. For each shape `context.lua` keeps a function that makes the
//! table, so LuaJIT copies a template of the right size where the C interface would add key after key: 900 of 22 100
//! instructions for two parameters (`./dev gate routes200`).

use std::collections::HashMap;

use crate::lua::{Raise, Returns, Stack};
use crate::route::{FastRouter, Params, RouteId, decode_param};

use super::{Contexts, ticket};

/// Shapes with more names than this have no function: their table is made here.
const MOST_VALUES: usize = 4;

/// The number of the shape whose table is handed over complete.
const COMPLETE: f64 = 0.0;

/// The lists of parameter names that an app uses.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    /// By route.
    numbers: Vec<u32>,
    lists: Vec<Vec<Box<str>>>,
}

impl Shapes {
    /// The shapes of an app's routes.
    pub(crate) fn of(router: &FastRouter) -> Shapes {
        let mut known = HashMap::new();
        let mut shapes = Shapes::default();
        for route in 0..router.routes().len() {
            let names = router.param_names(RouteId(route as u32));
            let number = *known.entry(names).or_insert_with(|| {
                shapes.lists.push(names.to_vec());
                shapes.lists.len() as u32 - 1
            });
            shapes.numbers.push(number);
        }
        shapes
    }

    #[inline]
    fn get(&self, route: RouteId) -> Option<(u32, &[Box<str>])> {
        let number = *self.numbers.get(route.0 as usize)?;
        Some((number, self.lists.get(number as usize)?))
    }
}

/// `values(ctx)`: the number of the shape, counted from 1, and the values in its order; or 0 and the table.
pub(super) fn values(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let ticket = ticket(stack, contexts, "params()")?;
    let request = contexts.requests.get(ticket)?;
    let path = request.head.uri.path();
    let Some((shape, names, params)) = request.route.as_ref().and_then(|(route, params)| {
        let (shape, names) = contexts.shapes.get()?.get(*route)?;
        Some((shape, names, params))
    }) else {
        stack.push_number(COMPLETE);
        stack.push_table(0, 0);
        return Ok(2);
    };
    if names.len() > MOST_VALUES {
        stack.push_number(COMPLETE);
        complete(stack, names, params, path);
        return Ok(2);
    }
    stack.push_number(f64::from(shape) + 1.0);
    for n in 0..names.len() {
        let raw = params.raw(n, path).unwrap_or_default();
        // Few values are encoded, and most are too short for a search by `memchr` to pay.
        match raw.bytes().any(|byte| byte == b'%') {
            true => stack.push_bytes(&decode_param(raw)),
            false => stack.push_bytes(raw.as_bytes()),
        }
    }
    Ok(names.len() as i32 + 1)
}

#[cold]
fn complete(stack: &mut Stack<'_>, names: &[Box<str>], params: &Params, path: &str) {
    stack.push_table(0, names.len());
    let table = stack.top();
    for (n, name) in names.iter().enumerate() {
        stack.push_bytes(name.as_bytes());
        stack.push_bytes(&decode_param(params.raw(n, path).unwrap_or_default()));
        stack.set_field(table);
    }
}

/// `names(shape)`: the names of a shape, as an array.
pub(super) fn names(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let number = stack.number(1) as usize;
    let names = contexts.shapes.get().and_then(|shapes| shapes.lists.get(number.wrapping_sub(1)));
    let names = names.ok_or_else(|| Raise::mistake("no such list of parameters"))?;
    stack.push_table(names.len(), 0);
    let table = stack.top();
    for (n, name) in names.iter().enumerate() {
        stack.push_bytes(name.as_bytes());
        stack.set_item(table, n as i32 + 1);
    }
    Ok(1)
}
