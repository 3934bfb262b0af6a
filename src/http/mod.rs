//! What others may read of an agent over HTTP/1.1: metrics, health, members, events (docs/interfaces.md#http).
//! There are no orders here, by design: whoever reaches this port can read, and nothing else.
//!
//! Off unless -http-addr is given; without the feature `http` only the figures are left.

mod figures;

#[cfg(feature = "http")]
mod body;
#[cfg(feature = "http")]
mod events;
#[cfg(feature = "http")]
mod feed;
#[cfg(feature = "http")]
mod gate;
#[cfg(feature = "http")]
mod members;
#[cfg(feature = "http")]
mod metrics;
#[cfg(feature = "http")]
mod params;
#[cfg(feature = "http")]
mod places;
#[cfg(feature = "http")]
mod route;
#[cfg(feature = "http")]
mod server;

pub use figures::{Figures, MemberChanges, TemplateFigures, Totals};
#[cfg(feature = "http")]
pub use gate::{Gate, is_local};
#[cfg(feature = "http")]
pub use server::serve;

#[cfg(feature = "http")]
use std::sync::Arc;

#[cfg(feature = "http")]
use crate::events::hub::Subscription;
#[cfg(feature = "http")]
use fyrd_core::serf::Member;

/// What the server asks of the agent. Nothing is an agent that is about to end.
#[cfg(feature = "http")]
#[expect(
    async_fn_in_trait,
    reason = "all clients are served on the agent's own thread"
)]
pub trait Backend: Clone + 'static {
    /// All known members.
    async fn members(&self) -> Option<Vec<Arc<Member>>>;
    /// All figures.
    async fn figures(&self) -> Option<Figures>;
    /// All events from now on, as the node tells them.
    async fn events(&self) -> Option<Subscription>;
}
