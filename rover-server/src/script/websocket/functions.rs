//! The native functions behind `websocket.lua`, and `rover.publish`.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use mlua::{Function, Lua, Table};
use rover_lua::json;
use rover_lua::{Kind, Name, Raise, Returns, Shared, Stack};
use tungstenite::Utf8Bytes;

use crate::exchange::context::{self, SentPath};
use crate::script::tasks::{Held, alive};
use crate::script::vm::Vm;

use super::client::{Client, Outgoing, Pushed};
use super::handshake::{self, Asked};
use super::hub::{Audience, Delivery, Hub};
use super::session::{Beginning, Session};
use super::{Handlers, Sockets};

/// How many topics one client may subscribe to.
const MOST_TOPICS: usize = 1000;

/// The longest name of a topic, in bytes.
const LONGEST_TOPIC: usize = 256;

/// Adds `publish` to `rover`, and what `dsl.lua` declares endpoints of WebSockets with.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install(vm: &Vm, hub: Arc<Hub>) -> mlua::Result<()> {
    let sockets = Sockets::new(&vm.tasks, vm.contexts(), &vm.responder, &vm.waits, hub);
    let (declare, handler): (Function, Function) = vm.file("websocket", include_str!("websocket.lua"))?.call((
        natives(&vm.lua, &vm.rover, &sockets)?,
        &vm.mistake,
        &vm.response_meta,
        vm.refusal()?,
        vm.rover.raw_get::<Table>("json")?.raw_get::<Function>("decode")?,
        vm.rover.raw_get::<Table>("log")?.raw_get::<Function>("debug")?,
    ))?;
    vm.native.raw_set("declare_socket", declare)?;
    vm.native.raw_set("socket_handler", handler)?;
    let counted = Rc::downgrade(&sockets);
    vm.sources.add(move |samples| {
        if let Some(sockets) = counted.upgrade() {
            sockets.count(samples);
        }
    });
    vm.settling.add(move |config| sockets.settle(&config.websocket));
    Ok(())
}

/// Makes the functions for `websocket.lua`, and adds `publish` to `rover`.
fn natives(lua: &Lua, rover: &Table, sockets: &Rc<Sockets>) -> mlua::Result<Table> {
    let shared = Shared::new(lua, sockets.clone())?;
    let native = lua.create_table()?;
    native.raw_set("handlers", shared.function(lua, handlers)?)?;
    native.raw_set("open", shared.function(lua, open)?)?;
    native.raw_set("send", sockets.waits.waiting(lua, shared.function(lua, send)?)?)?;
    native.raw_set("broadcast", shared.function(lua, broadcast)?)?;
    native.raw_set("subscribe", shared.function(lua, subscribe)?)?;
    native.raw_set("unsubscribe", shared.function(lua, unsubscribe)?)?;
    native.raw_set("close", shared.function(lua, close)?)?;
    let publish: Function = shared.function(lua, publish)?;
    rover.raw_set("publish", publish)?;
    Ok(native)
}

/// `handlers(join, message, leave)`: what sessions call.
fn handlers(stack: &mut Stack<'_>, sockets: &Sockets) -> Returns {
    let mut keep = |index| {
        stack.push_copy(index);
        stack.pop_anchor()
    };
    let handlers = Handlers { join: keep(1), message: keep(2), leave: keep(3) };
    let _ = sockets.handlers.set(handlers);
    Ok(0)
}

/// `open(ctx, endpoint, place)` → nothing where the request is no handshake; a status and a reason where it is refused;
/// else 101, what the response holds, and the value of `Sec-WebSocket-Accept`.
fn open(stack: &mut Stack<'_>, sockets: &Sockets) -> Returns {
    let request_key = context::request_key(stack, &sockets.contexts, "header(name)")?;
    let tasks = alive(&sockets.tasks)?;
    let handlers = *sockets.handlers.get().ok_or_else(|| Raise::mistake("this app has not loaded"))?;
    let settings = sockets.settings.borrow().clone();
    let request = sockets.contexts.requests.get(request_key)?;
    let told_host = request.client.as_ref().and_then(|client| client.host.as_deref());
    let accept = match handshake::read(&request.head, told_host, &settings.origins) {
        Asked::Plain => return Ok(0),
        Asked::Refuse(status, reason) => {
            stack.push_number(f64::from(status));
            stack.push_bytes(reason.as_bytes());
            return Ok(2);
        }
        Asked::Accept(_) if stack.boolean(4) => {
            stack.push_number(400.0);
            stack.push_bytes(b"the client offers no subprotocol that this path speaks");
            return Ok(2);
        }
        Asked::Accept(accept) => accept,
    };
    // The request ends with its response; the connection's handlers ask this copy of it.
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = request.head.method.clone();
    head.uri = request.head.uri.clone();
    if let Some(sent) = request.head.extensions.get::<SentPath>() {
        head.extensions.insert(sent.clone());
    }
    head.version = request.head.version;
    head.headers = request.head.headers.clone();
    let peer = request.peer.clone();
    let (route, id, behind) = (request.route.clone(), request.id.clone(), request.client.clone());
    drop(request);
    let request = sockets.contexts.requests.open(head, &peer, |_| {});
    request.look(|copy| (copy.route, copy.id, copy.client) = (route, id, behind));
    let context = Held::copies(&tasks, stack, 1, 1)?;
    let endpoint = stack.number(2) as u32;
    let place = String::from_utf8_lossy(stack.bytes(3).unwrap_or_default()).into();
    let client = Client::new(sockets.crowd.hub().next_client(), endpoint, settings.max_queue);
    let begun = Beginning { crowd: sockets.crowd.clone(), tasks, handlers, client, request, context, settings, place };
    stack.push_number(101.0);
    let upgrade = Box::new(move |upgraded| Box::pin(Session::new(begun, upgraded)) as _);
    sockets.responder.push_upgrade(stack, peer, upgrade);
    stack.push_bytes(accept.as_bytes());
    Ok(3)
}

/// The kinds of messages, as `websocket.lua` knows them.
const TEXT: u8 = 2;
const BINARY: u8 = 3;

/// Reads a message: its kind, its type, and its fields or bytes, from `first` on.
fn message(stack: &mut Stack<'_>, sockets: &Sockets, first: i32) -> Result<Outgoing, Raise> {
    let (kind, name, value) = (stack.number(first) as u8, first + 1, first + 2);
    if kind == TEXT || kind == BINARY {
        let call = if kind == TEXT { "ws.send_text" } else { "ws.send_binary" };
        let Some(bytes) = stack.bytes(value) else {
            return Err(Raise::Mistake(format!("{call} expects a string, not {}", stack.kind(value).name())));
        };
        let bytes = Bytes::copy_from_slice(bytes);
        if kind == BINARY {
            return Ok(Outgoing::Binary(bytes));
        }
        let text = Utf8Bytes::try_from(bytes);
        return text
            .map(Outgoing::Text)
            .map_err(|_| Raise::mistake("ws.send_text expects UTF-8: send bytes with ws.send_binary"));
    }
    let mut out = Vec::new();
    encode(stack, sockets, name, value, &mut out)?;
    String::from_utf8(out).map(|text| Outgoing::Text(text.into())).map_err(|_| Raise::mistake("JSON that is not UTF-8"))
}

/// Writes the fields at `value` and the type at `name` as one object.
fn encode(stack: &mut Stack<'_>, sockets: &Sockets, name: i32, value: i32, out: &mut Vec<u8>) -> Result<(), Raise> {
    let own = stack.bytes(name).unwrap_or_default().to_vec();
    let mut fields = value;
    let mut has_type = false;
    match stack.kind(value) {
        Kind::Nil => {
            out.extend_from_slice(b"{}");
        }
        Kind::Table => {
            stack.push_bytes(b"type");
            stack.get_field(value);
            let top = stack.top();
            has_type = stack.bytes(top) == Some(&own);
            let differs = !has_type && stack.kind(top) != Kind::Nil;
            stack.pop(1);
            if differs {
                fields = without_type(stack, value);
            }
            json::encode(stack, fields, &sockets.contexts.vocabulary, out)
                .map_err(|error| Raise::Mistake(error.to_string()))?;
        }
        kind => return Err(Raise::Mistake(format!("a message is a table of fields, not {}", kind.name()))),
    }
    if out.first() != Some(&b'{') {
        return Err(Raise::mistake("the fields of a message have names, as in { text = \"hello\" }"));
    }
    if !has_type {
        let mut head = b"{\"type\":".to_vec();
        json::push_text(&own, &mut head);
        if out.len() > 2 {
            head.push(b',');
        }
        out.splice(..1, head);
    }
    Ok(())
}

/// Pushes a copy of the table at `index` without its field `type`.
fn without_type(stack: &mut Stack<'_>, index: i32) -> i32 {
    stack.push_table(0, 4);
    let copy = stack.top();
    stack.push_nil();
    while stack.next(index) {
        let (key, value) = (stack.top() - 1, stack.top());
        if stack.bytes(key) != Some(b"type") {
            stack.push_copy(key);
            stack.push_copy(value);
            stack.set_field(copy);
        }
        stack.pop(1);
    }
    copy
}

/// Pushes true, or nil and that the client is gone.
fn sent(stack: &mut Stack<'_>, done: bool) -> Returns {
    if done {
        stack.push_boolean(true);
        return Ok(1);
    }
    stack.push_nil();
    stack.push_bytes(b"closed");
    Ok(2)
}

/// `send(kind, type, value)`: to the client whose handler runs. Waits where its queue is full.
fn send(stack: &mut Stack<'_>, sockets: &Sockets) -> Returns {
    let message = message(stack, sockets, 1)?;
    let Some(client) = sockets.current() else {
        return Err(Raise::mistake(
            "no client is known here: a message to one is sent in its handlers; :all(t), :to(topic)(t) and rover.publish work \
             anywhere",
        ));
    };
    match client.push(message) {
        Pushed::Full(message) => sockets.waits.suspend(stack, Name::Own("ws.send"), async move {
            let done = client.push_in_turn(message).await;
            move |stack: &mut Stack<'_>| sent(stack, done)
        }),
        pushed => {
            stack.push_boolean(true);
            sent(stack, matches!(pushed, Pushed::Waits)).map(|n| n + 1)
        }
    }
}

/// `broadcast(endpoint, has_exception, topic, kind, type, value)`: to an endpoint's clients, or to a topic's.
fn broadcast(stack: &mut Stack<'_>, sockets: &Sockets) -> Returns {
    let target = match stack.kind(3) {
        Kind::Nil => Audience::Endpoint(stack.number(1) as u32),
        _ => Audience::Topic(topic(stack, 3, ":to")?),
    };
    let mut except = 0;
    if stack.boolean(2) {
        let client = sockets.current();
        except = client
            .map(|client| client.id)
            .ok_or_else(|| Raise::mistake("no client is known here: :except(t) is for its handlers; use :all(t)"))?;
    }
    let message = message(stack, sockets, 4)?;
    deliver(stack, sockets, &Delivery { target, except, message })
}

/// `rover.publish(topic, type, fields)`.
fn publish(stack: &mut Stack<'_>, sockets: &Sockets) -> Returns {
    let target = Audience::Topic(topic(stack, 1, "rover.publish")?);
    if stack.kind(2) != Kind::String {
        let kind = stack.kind(2).name();
        return Err(Raise::Mistake(format!("rover.publish expects the type of the message as a string, not {kind}")));
    }
    let mut out = Vec::new();
    encode(stack, sockets, 2, 3, &mut out)?;
    let text = String::from_utf8(out).map_err(|_| Raise::mistake("JSON that is not UTF-8"))?;
    deliver(stack, sockets, &Delivery { target, except: 0, message: Outgoing::Text(text.into()) })
}

fn deliver(stack: &mut Stack<'_>, sockets: &Sockets, delivery: &Delivery) -> Returns {
    if sockets.crowd.send(delivery) {
        stack.push_boolean(true);
        return Ok(1);
    }
    stack.push_nil();
    stack.push_bytes(b"a worker is too far behind");
    Ok(2)
}

fn topic(stack: &Stack<'_>, index: i32, call: &str) -> Result<Arc<[u8]>, Raise> {
    match stack.bytes(index) {
        Some(name) if (1..=LONGEST_TOPIC).contains(&name.len()) => Ok(name.into()),
        Some(_) => Err(Raise::Mistake(format!("{call} expects a topic of 1 to {LONGEST_TOPIC} bytes"))),
        None => Err(Raise::Mistake(format!("{call} expects a topic as a string, not {}", stack.kind(index).name()))),
    }
}

/// The client whose handler calls `call`.
fn own_client(sockets: &Sockets, call: &str) -> Result<Rc<Client>, Raise> {
    sockets
        .current()
        .ok_or_else(|| Raise::Mistake(format!("no client is known here: {call} is for a client's handlers")))
}

/// `subscribe(topic)`.
fn subscribe(stack: &mut Stack<'_>, sockets: &Sockets) -> Returns {
    let name = topic(stack, 1, "ws.listen")?;
    let client = own_client(sockets, "ws.listen(topic)")?;
    if client.is_closed() {
        return Ok(0);
    }
    let (is_known, known) = (client.topics.borrow().contains(&*name), client.topics.borrow().len());
    if is_known {
        return Ok(0);
    }
    if known >= MOST_TOPICS {
        return Err(Raise::Mistake(format!("a client listens to at most {MOST_TOPICS} topics")));
    }
    sockets.crowd.subscribe(&client, &name);
    Ok(0)
}

/// `unsubscribe(topic)`.
fn unsubscribe(stack: &mut Stack<'_>, sockets: &Sockets) -> Returns {
    let name = topic(stack, 1, "ws.unlisten")?;
    sockets.crowd.unsubscribe(&*own_client(sockets, "ws.unlisten(topic)")?, &name);
    Ok(0)
}

/// `close(code, reason)`.
fn close(stack: &mut Stack<'_>, sockets: &Sockets) -> Returns {
    let code = match stack.kind(1) {
        Kind::Nil => 1000.0,
        _ => stack.number(1),
    };
    // RFC 6455, section 7.4: the others are not sent, or belong to the protocol.
    let is_allowed = code.fract() == 0.0 && matches!(code as u32, 1000 | 1001 | 1003 | 1007..=1014 | 3000..=4999);
    if !is_allowed {
        return Err(Raise::mistake(
            "ws.close expects a code that an app may send: 1000, 1001, 1003, 1007 to 1014 or 3000 to 4999",
        ));
    }
    let reason = match stack.kind(2) {
        Kind::Nil => "",
        _ => stack
            .bytes(2)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .filter(|text| text.len() <= 123)
            .ok_or_else(|| Raise::mistake("ws.close expects a reason of at most 123 bytes of UTF-8"))?,
    };
    let client = own_client(sockets, "ws.close")?;
    let _ = client.push(Outgoing::Close(code as u16, reason.into()));
    Ok(0)
}
