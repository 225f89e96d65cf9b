//! A request in progress: what it holds, and what is counted of it.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;

use super::Problem;
use super::breaker::BreakerPass;
use super::figures::{OriginFigures, add, subtract};
use super::pool::Lease;

/// A request in progress, up to the end of its answer's body.
pub(crate) struct Active {
    figures: Arc<OriginFigures>,
    turn: Option<OwnedSemaphorePermit>,
    pass: Option<BreakerPass>,
    pub(super) lease: Option<Lease>,
    is_over: bool,
}

impl Active {
    /// One that begins now.
    pub(super) fn begin(
        figures: &Arc<OriginFigures>,
        turn: Option<OwnedSemaphorePermit>,
        pass: Option<BreakerPass>,
    ) -> Active {
        add(&figures.requests);
        add(&figures.active);
        Active { figures: figures.clone(), turn, pass, lease: None, is_over: false }
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        let is_success = !status.is_server_error();
        if !is_success {
            add(&self.figures.failures);
        }
        self.tell(is_success);
    }

    pub(super) fn failed(&mut self, problem: &Problem) {
        if problem.is_of_client() {
            return;
        }
        add(&self.figures.failures);
        if problem.blames_server() {
            self.tell(false);
        }
    }

    fn tell(&mut self, is_success: bool) {
        if let Some(pass) = &mut self.pass {
            pass.tell(is_success);
        }
    }

    /// The body has come to its end, or broke off.
    pub(super) fn end(&mut self, is_complete: bool) {
        if !is_complete && !self.is_over {
            add(&self.figures.failures);
            self.tell(false);
        }
        if is_complete {
            self.give_back();
        }
        self.leave();
    }

    pub(super) fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn leave(&mut self) {
        if !self.is_over {
            self.is_over = true;
            subtract(&self.figures.active);
        }
        self.turn = None;
        self.lease = None;
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.leave();
    }
}
