//! What each request does, except for subscriptions and keys.

use subtle::ConstantTimeEq;
use tokio::time::sleep;
use tracing::warn;

use super::client::{Client, Next};
use super::members::{MemberFilter, coordinate_response, members_response};
use super::outbox::encode_body;
use super::{Backend, Joined};
use crate::rpc::types::{
    AuthRequest, HandshakeRequest, IPC_VERSION, JoinRequest, JoinResponse, MembersFilteredRequest,
    MembersResponse, Request, StatsResponse,
};
use fyrd_core::serf::keyring::KeyOp;

impl<B: Backend> Client<B> {
    pub(super) async fn perform(&mut self, request: Option<Request>) -> Result<Next, String> {
        let Some(request) = request else {
            self.refuse("Unsupported command").await?;
            return Ok(Next::Close(format!(
                "command '{}' not recognized",
                self.header.command
            )));
        };
        // Only the answer to an event may wait for the next: all else may take long, or sends much.
        if !matches!(request, Request::Event(_)) {
            self.outbox.flush().await?;
        }
        match request {
            Request::Handshake(body) => self.handshake(&body).await?,
            Request::Auth(body) => self.auth(&body).await?,
            Request::Members => self.list_members().await?,
            Request::MembersFiltered(body) => self.members_filtered(&body).await?,
            Request::Join(body) => self.join(body).await?,
            Request::Leave => return self.leave().await,
            Request::ForceLeave(body) => {
                let done = self.backend.force_leave(body.node, body.prune).await;
                self.acknowledge(done).await?;
            }
            Request::Tags(body) => {
                let done = self.backend.set_tags(body.tags, body.delete_tags).await;
                self.acknowledge(done).await?;
            }
            Request::Stats => {
                let stats = self.backend.stats().await;
                self.answer(&StatsResponse(stats)).await?;
            }
            Request::GetCoordinate(body) => {
                let coordinate = self.backend.coordinate(body.node).await;
                self.answer(&coordinate_response(coordinate)).await?;
            }
            Request::Event(body) => {
                let sending = self.backend.user_event(body.name, body.payload, body.coalesce);
                let sent = self.outbox.flush_if_slow(sending).await?;
                self.acknowledge_soon(sent).await?;
            }
            Request::Stream(body) => self.open_stream(&body.r#type).await?,
            Request::Monitor(body) => self.open_monitor(&body.log_level).await?,
            Request::Stop(body) => self.stop(body.stop).await?,
            Request::Query(body) => self.start_query(body).await?,
            Request::Respond(body) => self.respond(body).await?,
            Request::InstallKey(body) => self.change_key(KeyOp::Install, &body.key).await?,
            Request::UseKey(body) => self.change_key(KeyOp::Use, &body.key).await?,
            Request::RemoveKey(body) => self.change_key(KeyOp::Remove, &body.key).await?,
            Request::ListKeys => self.list_keys().await?,
        }
        Ok(Next::Continue)
    }

    async fn handshake(&mut self, body: &HandshakeRequest) -> Result<(), String> {
        if body.version != IPC_VERSION {
            return self.refuse("Unsupported IPC version").await;
        }
        if self.greeted {
            return self.refuse("Handshake already performed").await;
        }
        self.greeted = true;
        self.acknowledge(Ok(())).await
    }

    /// An agent without a token compares with the empty one, as Serf does.
    async fn auth(&mut self, body: &AuthRequest) -> Result<(), String> {
        let pause = self.guesses.pause(&self.source);
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let expected = self.backend.rpc_auth().unwrap_or_default();
        if !bool::from(expected.as_bytes().ct_eq(body.auth_key.as_bytes())) {
            let (source, count) = (&self.source, self.guesses.note_wrong(&self.source));
            warn!(target: "agent.ipc", "Wrong token from {source} (count: {count})");
            return self.refuse("Invalid authentication token").await;
        }
        self.guesses.forgive(&self.source);
        self.authenticated = true;
        self.acknowledge(Ok(())).await
    }

    /// All members. The bytes are made anew only when somebody has changed.
    async fn list_members(&mut self) -> Result<(), String> {
        let known = self.listing.version();
        if let Some((version, members)) = self.backend.members_since(known).await {
            let body = encode_body(&members_response(members.iter()))?;
            self.listing.replace(version, body);
        }
        self.outbox
            .answer_with(self.header.seq, &self.listing.body())
            .await
    }

    async fn members_filtered(&mut self, filter: &MembersFilteredRequest) -> Result<(), String> {
        if *filter == MembersFilteredRequest::default() {
            return self.list_members().await;
        }
        match MemberFilter::new(filter) {
            Ok(filter) => {
                let members = self.backend.members().await;
                self.answer(&members_response(
                    members.iter().filter(|member| filter.matches(member)),
                ))
                .await
            }
            Err(reason) => self.send(&reason, Some(&MembersResponse::default())).await,
        }
    }

    /// Clients read the body of this answer even when there is an error.
    async fn join(&mut self, request: JoinRequest) -> Result<(), String> {
        let (error, joined) = match self.backend.join(request.existing, request.replay).await {
            Ok(joined) => (String::new(), joined),
            Err(reason) => (reason, Joined::default()),
        };
        let num = i32::try_from(joined.contacted).unwrap_or(i32::MAX);
        let failed = if request.detail { joined.failed } else { Vec::new() };
        self.send(&error, Some(&JoinResponse { num, failed })).await
    }

    async fn leave(&mut self) -> Result<Next, String> {
        let done = self.backend.leave().await;
        let left = done.is_ok();
        let told = self.acknowledge(done).await;
        if left {
            // The agent ends, whether the client has waited for it or not.
            return Ok(Next::Left);
        }
        told.map(|()| Next::Continue)
    }

    /// Ends a stream or a monitor. None of its records come after the answer; to stop what does not
    /// exist is no error.
    async fn stop(&mut self, seq: u64) -> Result<(), String> {
        self.streams.remove(&seq);
        self.monitor.take_if(|(monitor, _)| *monitor == seq);
        self.acknowledge(Ok(())).await
    }
}
