//! Handles bodies that are not collected before Lua runs: hooks decide first, or the handler reads the body itself.
//!
//! Comes in: a request whose route is known, and its body. Goes out: the request with its body to be asked for, and the
//! function that answers it. A body that came along with its head is collected anyway, because that costs no wait.

use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::Bytes;
use http::{Response, StatusCode, Version};

use super::Site;
use super::answer::{CollectingBody, Ending, HandlerCall};
use crate::exchange::context::{self, RequestGuard};
use crate::message::body::Body;
use crate::message::collect::Collect;
use crate::message::decode;
use crate::message::unread::{Purpose, Unread, UnreadGuard};
use crate::policy::http_checks;

/// The longest body that is looked for beside its head, in bytes: about what a connection reads at once.
const BESIDE_HEAD: u64 = 8 * 1024;

impl Site {
    /// Answers before anybody could ask for the body, which is left.
    pub(super) fn early<B>(
        &self,
        mut response: Response<Body>,
        request: &mut context::Request,
        body: B,
        close: bool,
        ending: &mut Ending,
    ) -> ControlFlow<Box<Response<Body>>, HandlerCall>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        if close {
            http_checks::close(&mut response);
        } else if !body.is_end_stream() {
            let left = Collect::of_any_length(body, u64::MAX, self.pace(), None).boxed();
            let is_held_back = http_checks::holds_body_back(&request.head);
            let unread = Unread::new(Purpose::Nothing, left).sent(is_held_back, is_multiplexed(request));
            hold(request, ending, unread);
        }
        ControlFlow::Break(Box::new(response))
    }

    /// Leaves the body for whoever asks for it, or has it looked for beside the head: that is for `collect`.
    #[cold]
    pub(super) fn leave<B>(
        &self,
        request: &mut context::Request,
        body: B,
        mut call: HandlerCall,
        collect: &mut Option<Collect<B>>,
        ending: &mut Ending,
    ) -> HandlerCall
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let endpoint = self.app.endpoint(call.entry);
        let purpose = endpoint.purpose(&request.head.method);
        let limit = match purpose {
            // Whoever it is passed on to has limits of its own.
            Purpose::Pass | Purpose::Nothing => u64::MAX,
            Purpose::Collect => self.longest_body(&endpoint),
            Purpose::Read => endpoint.body_size_limit.unwrap_or(self.config.body_size_limit),
        };
        let coding = decode::coding(&request.head.headers);
        let is_held_back = http_checks::holds_body_back(&request.head);
        let is_near = body.size_hint().lower() <= BESIDE_HEAD.min(limit);
        let begun = Collect::of_any_length(body, limit, self.pace(), coding.unwrap_or_default());
        let begun = match purpose {
            Purpose::Collect => begun.counted(|| self.app.share(&request.peer)),
            Purpose::Pass | Purpose::Read | Purpose::Nothing => begun,
        };
        if purpose == Purpose::Collect && is_near && !is_held_back && coding.is_ok() {
            *collect = Some(begun);
            return call;
        }
        if purpose == Purpose::Collect {
            call.function = endpoint.later;
        }
        let unread = Unread::new(purpose, begun.boxed()).sent(is_held_back, is_multiplexed(request));
        hold(
            request,
            ending,
            match coding {
                Err(_) if purpose == Purpose::Collect => unread.failed(StatusCode::UNSUPPORTED_MEDIA_TYPE),
                _ => unread,
            },
        );
        call
    }

    /// The body did not come along with the head, or is wrong: the hooks decide first, with as much of it as has come.
    #[cold]
    pub(super) fn defer<B>(
        &self,
        request: &RequestGuard,
        collect: Collect<B>,
        failed: Option<StatusCode>,
        call: &mut HandlerCall,
        ending: &mut Ending,
    ) where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        call.function = self.app.endpoint(call.entry).later;
        request.look(|request| {
            let unread = Unread::new(Purpose::Collect, collect.boxed()).sent(false, is_multiplexed(request));
            hold(
                request,
                ending,
                match failed {
                    Some(status) => unread.failed(status),
                    None => unread,
                },
            );
        });
    }
}

fn is_multiplexed(request: &context::Request) -> bool {
    request.head.version > Version::HTTP_11
}

fn hold(request: &mut context::Request, ending: &mut Ending, unread: Unread) {
    let unread = Rc::new(unread.judged(request.peer.faults()));
    if !is_multiplexed(request) {
        request.peer.leave(&unread);
    }
    request.unread = Some(unread.clone());
    ending.unread = Some(UnreadGuard(unread));
}

impl<B> CollectingBody<B> {
    /// Whether hooks decide before the body has to be there.
    pub(super) fn is_late(&self) -> bool {
        self.site.app.endpoint(self.call.entry).later != 0
    }
}
