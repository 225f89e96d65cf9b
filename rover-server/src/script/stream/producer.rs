//! Runs a producer as a body: calls it for each piece, and only when the client has room for it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use rover_lua::{Kind, Stack};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep};

use crate::log::{self, Level};
use crate::message::body::Aborted;
use crate::runtime::turn::Stint;
use crate::script::tasks::{Held, Run, Tasks};

use super::event;

/// What makes a stream one of server-sent events.
pub(super) struct Events {
    /// Sent first.
    retry: Option<u64>,
    keep_alive: Duration,
    /// When nothing has been sent for too long. Made when the producer first waits.
    silence: Option<Pin<Box<Sleep>>>,
    /// The server stops. Made when the producer first waits.
    ending: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Events {
    pub(super) fn new(tasks: &Tasks, retry: Option<u64>) -> Events {
        Events { retry, keep_alive: tasks.keep_alive(), silence: None, ending: None }
    }

    fn sent(&mut self) {
        if let Some(silence) = &mut self.silence {
            silence.as_mut().reset(Instant::now() + self.keep_alive);
        }
    }

    /// What is sent while the producer waits: `None` ends the stream.
    fn poll_meanwhile(&mut self, tasks: &Tasks, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let ending = self.ending.get_or_insert_with(|| {
            let ending = tasks.ending().clone();
            Box::pin(async move { ending.told().await })
        });
        if ending.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let keep_alive = self.keep_alive;
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(keep_alive)));
        ready!(silence.as_mut().poll(cx));
        self.sent();
        Poll::Ready(Some(Bytes::from_static(event::KEEP_ALIVE)))
    }
}

/// The body. Dropping it cancels the producer.
pub(super) struct Producer {
    /// Not stronger before a client asks for the first piece: one that is never sent is a value of the VM that the tasks
    /// belong to, and would keep it.
    tasks: Weak<Tasks>,
    serving: Option<Serving>,
    function: Held,
    /// Where the producer is written.
    place: Rc<str>,
    /// The call that waits.
    run: Option<Run>,
    events: Option<Events>,
    has_ended: bool,
    /// What it takes for one piece.
    stint: Stint,
}

/// What a producer holds once its pieces are asked for.
struct Serving {
    tasks: Rc<Tasks>,
    _guest: Rc<()>,
}

/// What came of a producer's call.
enum Piece {
    Bytes(Bytes),
    End,
    /// Why there is none.
    Problem(String),
}

impl Producer {
    pub(super) fn new(tasks: &Rc<Tasks>, function: Held, place: Rc<str>, events: Option<Events>) -> Producer {
        let tasks = Rc::downgrade(tasks);
        Producer { tasks, serving: None, function, place, run: None, events, has_ended: false, stint: Stint::default() }
    }

    /// The tasks of the VM, which lasts from now on as long as the stream.
    fn tasks(&mut self) -> Option<Rc<Tasks>> {
        if self.serving.is_none() {
            let tasks = self.tasks.upgrade()?;
            self.serving = Some(Serving { _guest: tasks.guest(), tasks });
        }
        self.serving.as_ref().map(|serving| serving.tasks.clone())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let Some(tasks) = self.tasks() else { return self.broken("this server has been shut down") };
        loop {
            if self.has_ended {
                return Poll::Ready(None);
            }
            if let Some(limit) = self.stint.excess() {
                let seconds = limit.as_secs_f64();
                return self.broken(&format!("stopped after {seconds} s of CPU time without a piece"));
            }
            if let Some(retry) = self.events.as_mut().and_then(|events| events.retry.take()) {
                return Poll::Ready(Some(Ok(event::retry(retry).into())));
            }
            if self.run.is_none() {
                match Run::again(&tasks, &mut self.function, &self.place) {
                    Ok(run) => self.run = Some(run.logged()),
                    Err(_) => return self.broken("too many tasks run in this worker"),
                }
            }
            let Some(run) = &mut self.run else { return Poll::Ready(None) };
            // A producer that never waits must not keep the worker for itself.
            let Poll::Ready(result) = self.stint.poll(cx, |cx| Pin::new(run).poll(cx)) else {
                let Some(events) = &mut self.events else { return Poll::Pending };
                let meanwhile = poll_fn(|cx| events.poll_meanwhile(&tasks, cx));
                // Also where the run has used up the task's turn.
                let piece = ready!(pin!(coop::unconstrained(meanwhile)).poll(cx));
                if piece.is_none() {
                    self.end();
                }
                return Poll::Ready(piece.map(Ok));
            };
            self.run = None;
            let Ok(mut held) = result else {
                self.end();
                return Poll::Ready(Some(Err(Aborted)));
            };
            match self.piece(&mut held, &tasks) {
                Piece::Bytes(bytes) if bytes.is_empty() => {}
                Piece::Bytes(bytes) => {
                    self.stint.rest();
                    if let Some(events) = &mut self.events {
                        events.sent();
                    }
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Piece::End => {
                    self.end();
                    return Poll::Ready(None);
                }
                Piece::Problem(problem) => return self.broken(&problem),
            }
        }
    }

    /// Reads what the producer returned.
    fn piece(&self, held: &mut Held, tasks: &Tasks) -> Piece {
        let Some(mut stack) = held.stack() else { return Piece::End };
        match stack.kind(1) {
            Kind::Nil if stack.kind(2) != Kind::Nil => Piece::Problem(self.failure(&mut stack)),
            Kind::Nil => Piece::End,
            _ if self.events.is_some() => match event::encode(&mut stack, 1, tasks.vocabulary()) {
                Ok(event) => Piece::Bytes(event.into()),
                Err(problem) => Piece::Problem(problem),
            },
            Kind::String => Piece::Bytes(Bytes::copy_from_slice(stack.bytes(1).unwrap_or_default())),
            Kind::Number => Piece::Bytes(stack.number_text(1).into()),
            kind => Piece::Problem(format!("a producer returns a string or nil, not {}", kind.name())),
        }
    }

    /// The message of a producer that returned nil and a message.
    fn failure(&self, stack: &mut Stack<'_>) -> String {
        let message = match stack.kind(2) {
            Kind::String => String::from_utf8_lossy(stack.bytes(2).unwrap_or_default()).into_owned(),
            kind => kind.name().to_owned(),
        };
        format!("the producer failed: {message}")
    }

    #[cold]
    fn broken(&mut self, problem: &str) -> Poll<Option<Result<Bytes, Aborted>>> {
        log::event(Level::Error, &format!("{}: a stream broke off: {problem}", self.place)).emit();
        self.end();
        Poll::Ready(Some(Err(Aborted)))
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.run = None;
        self.events = None;
    }
}

impl http_body::Body for Producer {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = &mut *self;
        match catch_unwind(AssertUnwindSafe(|| this.poll_piece(cx))) {
            Ok(polled) => polled.map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Err(_) => {
                log::event(Level::Error, "Rover panicked while it ran a producer; this is a bug in Rover").emit();
                self.has_ended = true;
                Poll::Ready(Some(Err(Aborted)))
            }
        }
    }
}
