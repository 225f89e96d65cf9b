//! Applies the configured policies before a request, without Lua: trusted proxies, CORS, load shedding, rate limits.
//!
//! Comes in: a request that HTTP itself does not refuse. Goes out: an answer, or permission to continue, with the
//! headers that its answer must carry. An app that configures none of it has no policy. This module must not know of
//! handlers.

use http::{Response, StatusCode};

use crate::config::Config;
use crate::exchange::context::Request;
use crate::exchange::failure;
use crate::message::body::Body;
use crate::policy::cors::{Cors, Grant, Question};
use crate::policy::load_shedding::{Permit, Shed};
use crate::policy::rate_limit::{Decision, RateLimits};
use crate::route::{FastRouter, RouteId};
use crate::script::app::App;
use crate::service::forwarded::Forwarded;

use std::sync::Arc;

/// The configured policies, in one worker.
pub(crate) struct RequestPolicy {
    forwarded: Option<Forwarded>,
    cors: Option<Cors>,
    shed: Option<Shed>,
    limits: Option<Arc<RateLimits>>,
}

/// What the policies keep of a request until it is answered.
#[derive(Default)]
pub(crate) struct PolicyPass {
    grant: Option<Grant>,
    /// A preflight for what may be a file.
    question: Option<Question>,
    decision: Option<Decision>,
    /// Held until there is an answer.
    permit: Option<Permit>,
}

impl RequestPolicy {
    /// The policies of a config; `None` if it configures none.
    pub(crate) fn new(config: &Config, limits: Option<Arc<RateLimits>>) -> Option<Box<RequestPolicy>> {
        let policy = RequestPolicy {
            forwarded: Forwarded::new(&config.proxies),
            cors: Cors::new(&config.cors),
            shed: Shed::new(&config.load_shedding),
            limits,
        };
        let has_any =
            policy.forwarded.is_some() || policy.cors.is_some() || policy.shed.is_some() || policy.limits.is_some();
        has_any.then(|| Box::new(policy))
    }

    /// Checks a request before its route is known. Returns an answer if no handler is needed.
    pub(crate) fn admit(
        &self,
        request: &mut Request,
        app: &App,
        router: &FastRouter,
        pass: &mut Option<Box<PolicyPass>>,
    ) -> Option<Response<Body>> {
        if let Some(forwarded) = &self.forwarded {
            request.client = forwarded.client(&mut request.head, &request.peer);
        }
        if self.cors.is_none() && self.shed.is_none() && self.limits.is_none() {
            return None;
        }
        let pass = pass.insert(Box::default());
        if let Some(cors) = &self.cors {
            let grant = cors.grant(&request.head, |origin| app.allows_origin(origin));
            let preflight = cors.preflight(&request.head, router, &grant);
            pass.grant = Some(grant);
            if preflight.is_some() {
                return preflight;
            }
            pass.question = cors.question(&request.head);
        }
        if let Some(shed) = &self.shed {
            pass.permit = shed.admit();
            if pass.permit.is_none() {
                return Some(shed.refusal());
            }
        }
        let decision = self.limits.as_ref()?.check_all(&request.head.headers, request.ip());
        pass.note(decision)
    }

    /// Checks a request whose route is known. Returns the answer if it is refused.
    pub(crate) fn admit_to(
        &self,
        route: RouteId,
        request: &Request,
        pass: &mut Option<Box<PolicyPass>>,
    ) -> Option<Response<Body>> {
        let decision = self.limits.as_ref()?.check_route(route.index(), &request.head.headers, request.ip());
        pass.as_mut()?.note(decision)
    }

    /// Adds to an answer what its request carries.
    pub(crate) fn finish(&self, pass: PolicyPass, response: &mut Response<Body>) {
        let is_empty = response.status() == StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if let Some(decision) = pass.decision {
            decision.write(headers);
        }
        if let (Some(cors), Some(grant)) = (&self.cors, pass.grant) {
            if let Some(question) = pass.question.filter(|_| is_empty) {
                cors.add_preflight(question, &grant, headers);
            }
            cors.add(grant, headers);
        }
    }
}

impl PolicyPass {
    /// Keeps a limit's decision for the answer; returns the answer if it is a refusal.
    fn note(&mut self, decision: Option<Decision>) -> Option<Response<Body>> {
        let decision = decision?.tighter(self.decision);
        self.decision = Some(decision);
        decision.is_refusal().then(|| failure::answer(StatusCode::TOO_MANY_REQUESTS))
    }
}
