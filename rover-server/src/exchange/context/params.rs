//! `ctx:params()`: builds the table of path parameters.
//!
//! Routes with the same parameter names share a *shape*. For each shape `context.lua` keeps a function that makes the
//! table, so LuaJIT copies a template of the right size where the C interface would add key after key: 900 of 22 100
//! instructions for two parameters (`./dev gate routes200`).

use std::collections::HashMap;

use rover_lua::{Raise, Returns, Stack};

use crate::route::{FastRouter, Guards, NamedValue, Params, RouteId, decode_param};

use super::{Contexts, request_key};

/// Shapes with more names than this have no function: their table is made here.
const MOST_VALUES: usize = 4;

/// The number of the shape whose table is handed over complete.
const COMPLETE: f64 = 0.0;

/// The lists of parameter names that an app uses.
#[derive(Debug, Default)]
pub(crate) struct ParamShapes {
    /// By route.
    numbers: Vec<u32>,
    lists: Vec<Vec<NamedParam>>,
}

/// A name, and which parameter of the route has it.
type NamedParam = (Box<str>, usize);

impl ParamShapes {
    /// The shapes of an app's routes. `guards` may have further names for their parameters, which their hooks know.
    pub(crate) fn of(router: &FastRouter, guards: Option<&Guards>) -> ParamShapes {
        let mut known: HashMap<Vec<NamedParam>, u32> = HashMap::new();
        let mut shapes = ParamShapes::default();
        for (n, route) in router.routes().iter().enumerate() {
            let own = router.param_names(RouteId(n as u32)).iter().cloned();
            let mut names: Vec<NamedParam> = own.zip(0..).collect();
            if let Some(guards) = guards.filter(|_| !names.is_empty()) {
                names.extend(guards.further_names(&route.pattern));
            }
            let number = match known.get(&names) {
                Some(number) => *number,
                None => {
                    let number = shapes.lists.len() as u32;
                    shapes.lists.push(names.clone());
                    known.insert(names, number);
                    number
                }
            };
            shapes.numbers.push(number);
        }
        shapes
    }

    #[inline]
    fn get(&self, route: RouteId) -> Option<(u32, &[NamedParam])> {
        let number = *self.numbers.get(route.0 as usize)?;
        Some((number, self.lists.get(number as usize)?))
    }
}

/// `values(ctx)`: the number of the shape, counted from 1, and the values in its order; or 0 and the table.
pub(super) fn values(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "params()")?;
    let request = contexts.requests.get(request_key)?;
    let path = request.head.uri.path();
    if let Some(guarded) = request.guarded.as_ref().filter(|guarded| !guarded.values.is_empty()) {
        let route = request.route.as_ref();
        let own = route.and_then(|(route, params)| Some((contexts.shapes.get()?.get(*route)?.1, Some(params))));
        stack.push_number(COMPLETE);
        complete(stack, own, path, &guarded.values);
        return Ok(2);
    }
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
        complete(stack, Some((names, Some(params))), path, &[]);
        return Ok(2);
    }
    stack.push_number(f64::from(shape) + 1.0);
    for (_, place) in names {
        let raw = params.raw(*place, path).unwrap_or_default();
        // Few values are encoded, and most are too short for a search by `memchr` to pay.
        match raw.bytes().any(|byte| byte == b'%') {
            true => stack.push_bytes(&decode_param(raw)),
            false => stack.push_bytes(raw.as_bytes()),
        }
    }
    Ok(names.len() as i32 + 1)
}

/// The table of what the route names, and of what the places of hooks name that the route does not.
#[cold]
fn complete(stack: &mut Stack<'_>, own: Option<(&[NamedParam], Option<&Params>)>, path: &str, further: &[NamedValue]) {
    stack.push_table(0, own.map_or(0, |(names, _)| names.len()) + further.len());
    let table = stack.top();
    let mut add = |name: &str, raw: &str| {
        stack.push_bytes(name.as_bytes());
        stack.push_bytes(&decode_param(raw));
        stack.set_field(table);
    };
    for (name, (start, end)) in further {
        add(name, path.get(*start as usize..*end as usize).unwrap_or_default());
    }
    let (names, params) = own.unwrap_or_default();
    for (name, place) in names {
        add(name, params.and_then(|params| params.raw(*place, path)).unwrap_or_default());
    }
}

/// `names(shape)`: the names of a shape, as an array.
pub(super) fn names(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let number = stack.number(1) as usize;
    let names = contexts.shapes.get().and_then(|shapes| shapes.lists.get(number.wrapping_sub(1)));
    let names = names.ok_or_else(|| Raise::mistake("no such list of parameters"))?;
    stack.push_table(names.len(), 0);
    let table = stack.top();
    for (n, (name, _)) in names.iter().enumerate() {
        stack.push_bytes(name.as_bytes());
        stack.set_item(table, n as i32 + 1);
    }
    Ok(1)
}
