//! Which path gives what.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::body::Body;
use super::events::{self, Wanted};
use super::feed::{Feed, Place};
use super::figures::Figures;
use super::gate::{Gate, Refusal};
use super::members::{self, Filter, ScrapePort};
use super::params::Params;
use super::places::Places;
use super::{Backend, metrics};
use fyrd_core::bounds::HTTP_WAIT;
use fyrd_core::duration;
use fyrd_core::serf::Member;

/// What all requests share.
pub(super) struct Shared<B> {
    pub(super) backend: B,
    pub(super) gate: Gate,
    pub(super) feed: Rc<Feed>,
    /// For those who wait: streams of events, and requests that wait for a change.
    pub(super) places: Places,
}

/// What there is, for people who look.
const INDEX: &str = "\
/metrics                   figures for Prometheus (OpenMetrics)
/healthz                   200 while the agent answers
/readyz                    200 if work may be sent here, else 503 and why not
/v1/self                   this agent
/v1/members                members; name=, status=, role=, tag=KEY=VALUE; index=, wait=60s for the next change
/v1/events                 events as they happen (server-sent events); type=
/v1/sd/prometheus          targets for Prometheus; port= or port_tag=, and the filters of members
";

type Reply = Result<Response<Body>, Problem>;

/// Why there is no good answer.
struct Problem(StatusCode, String);

impl Problem {
    fn bad(text: String) -> Problem {
        Problem(StatusCode::BAD_REQUEST, text)
    }

    /// The agent is about to end.
    fn gone() -> Problem {
        Problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent is shutting down".to_owned(),
        )
    }
}

/// Answers a request.
pub(super) async fn answer<B: Backend>(
    request: Request<Incoming>,
    shared: Rc<Shared<B>>,
) -> Result<Response<Body>, Infallible> {
    let reply = match admit(&request, &shared.gate) {
        Ok(()) => route(&request, &shared).await,
        Err(problem) => Err(problem),
    };
    let mut response = reply.unwrap_or_else(|Problem(status, text)| {
        let mut response = plain(format!("{text}\n"));
        *response.status_mut() = status;
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let methods = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, methods);
        }
        response
    });
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Those who watch over processes may ask for health without a token: the answers tell nothing else.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

fn admit(request: &Request<Incoming>, gate: &Gate) -> Result<(), Problem> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Problem(
            StatusCode::METHOD_NOT_ALLOWED,
            "this interface is for reading: GET and HEAD".to_owned(),
        ));
    }
    if gate.has_token() && OPEN.contains(&request.uri().path()) {
        return Ok(());
    }
    let headers = request.headers();
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let hosts: Vec<_> = headers.get_all(header::HOST).iter().collect();
    let host = match hosts[..] {
        [host] => host.to_str().ok(),
        [] => None,
        _ => return Err(Problem::bad("more than one header Host".to_owned())),
    };
    // Who names the host in the request's first line means that one (RFC 9112, 3.2.2).
    let host = request.uri().authority().map(Authority::as_str).or(host);
    gate.admit(authorization, host).map_err(|refusal| match refusal {
        Refusal::Token => Problem(
            StatusCode::UNAUTHORIZED,
            "a token is needed, as in: Authorization: Bearer TOKEN".to_owned(),
        ),
        Refusal::Host(host) => Problem(
            StatusCode::FORBIDDEN,
            format!("this agent does not answer to the host name {host:?}; -http-host=NAME allows one"),
        ),
    })
}

async fn route<B: Backend>(request: &Request<Incoming>, shared: &Shared<B>) -> Reply {
    let query = request.uri().query().unwrap_or_default();
    let params = |known: &[&str]| Params::parse(query, known).map_err(Problem::bad);
    match request.uri().path() {
        "/" => params(&[]).map(|_| plain(INDEX)),
        "/metrics" => {
            params(&[])?;
            let (figures, members) = (figures(shared).await?, all_members(shared).await?);
            let text = metrics::text(figures, &members).map_err(|_| Problem::gone())?;
            Ok(typed(metrics::CONTENT_TYPE, text))
        }
        "/healthz" => {
            params(&[])?;
            all_members(shared).await.map(|_| plain("ok\n"))
        }
        "/readyz" => {
            params(&[])?;
            let unready = figures(shared).await?.unready;
            if unready.is_empty() {
                return Ok(plain("ready\n"));
            }
            Err(Problem(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {}", unready.join("; ")),
            ))
        }
        "/v1/self" => {
            params(&[])?;
            let (figures, members) = (figures(shared).await?, all_members(shared).await?);
            Ok(object(&about(&figures, &members)))
        }
        "/v1/members" => {
            let [name, status, role, tag] = members::FILTERS;
            list(shared, &params(&[name, status, role, tag, "index", "wait"])?).await
        }
        "/v1/sd/prometheus" => {
            let [name, status, role, tag] = members::FILTERS;
            let params = params(&[name, status, role, tag, "port", "port_tag"])?;
            let port = ScrapePort::read(&params).map_err(Problem::bad)?;
            let filter = Filter::read(&params).map_err(Problem::bad)?.alive_by_default();
            let members = filter.apply(all_members(shared).await?);
            Ok(object(&members::targets(&members, &port)))
        }
        "/v1/events" => {
            let params = params(&["type", "last-event-id"])?;
            let last = request.headers().get("last-event-id");
            let last = match last.and_then(|last| last.to_str().ok()) {
                None => params.one("last-event-id").map_err(Problem::bad)?,
                last => last,
            };
            let from = last.map(place).transpose()?;
            let held = shared.places.take().ok_or_else(too_many)?;
            let wanted = Wanted::new(params.all("type"));
            let body = events::stream(&shared.feed, from, wanted, held);
            let mut response = Response::new(body);
            set_type(&mut response, "text/event-stream");
            Ok(response)
        }
        path => Err(Problem(
            StatusCode::NOT_FOUND,
            format!("there is nothing at {path:?}; / lists what there is"),
        )),
    }
}

/// The members, at once; or, where the client knows them as of `index`, once they have changed or `wait` is over.
async fn list<B: Backend>(shared: &Shared<B>, params: &Params<'_>) -> Reply {
    let filter = Filter::read(params).map_err(Problem::bad)?;
    let known = params
        .one("index")
        .map_err(Problem::bad)?
        .map(place)
        .transpose()?;
    let wait = match params.one("wait").map_err(Problem::bad)? {
        None => HTTP_WAIT,
        Some(text) => {
            let nanos = duration::parse(text)
                .ok()
                .and_then(|nanos| u64::try_from(nanos).ok());
            let wait = nanos.map(Duration::from_nanos).ok_or_else(|| {
                Problem::bad(format!(
                    "parameter \"wait\" is {text:?}, must be a time such as 30s"
                ))
            })?;
            wait.min(HTTP_WAIT)
        }
    };
    if let Some(known) = known {
        wait_for_change(shared, known, wait).await?;
    }
    // Read before the members are: a change in between is reported once more, and never missed.
    let index = shared.feed.members_end();
    let members = filter.apply(all_members(shared).await?);
    let members: Vec<_> = members.iter().map(|member| members::json(member)).collect();
    Ok(object(&json!({"index": index.to_string(), "members": members})))
}

async fn wait_for_change<B: Backend>(
    shared: &Shared<B>,
    known: Place,
    wait: Duration,
) -> Result<(), Problem> {
    let mut news = shared.feed.news();
    if shared.feed.members_end() != known {
        return Ok(());
    }
    let _held = shared.places.take().ok_or_else(too_many)?;
    let deadline = Instant::now() + wait;
    while shared.feed.members_end() == known {
        match timeout_at(deadline, news.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Problem::gone()),
            Err(_) => break,
        }
    }
    Ok(())
}

fn place(text: &str) -> Result<Place, Problem> {
    Place::parse(text).ok_or_else(|| {
        Problem::bad(format!(
            "{text:?} is no place in the run of events, as an answer of this agent gives them"
        ))
    })
}

fn too_many() -> Problem {
    Problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many clients wait for events already; try again later".to_owned(),
    )
}

fn about(figures: &Figures, members: &[Arc<Member>]) -> serde_json::Value {
    let me = members.iter().find(|member| *member.name == *figures.name);
    let keys = figures.keys.as_ref().map(|keys| {
        json!({
            "keys": keys.count,
            "primary": keys.fingerprint.to_string(),
            "cipher": keys.cipher.to_string(),
        })
    });
    json!({
        "member": me.map(|member| members::json(member)),
        "version": env!("CARGO_PKG_VERSION"),
        "profile": figures.profile,
        "encryption": keys,
        "uptime_seconds": figures.uptime.as_secs(),
        "members": members.len(),
        "position": members::position(members, &figures.name),
        "health_score": figures.stats.health_score,
        "isolated": figures.stats.isolated,
        "ready": figures.unready.is_empty(),
    })
}

async fn figures<B: Backend>(shared: &Shared<B>) -> Result<Figures, Problem> {
    shared.backend.figures().await.ok_or_else(Problem::gone)
}

async fn all_members<B: Backend>(shared: &Shared<B>) -> Result<Vec<Arc<Member>>, Problem> {
    shared.backend.members().await.ok_or_else(Problem::gone)
}

fn plain(text: impl Into<String>) -> Response<Body> {
    typed("text/plain; charset=utf-8", text.into())
}

fn object(value: &impl serde::Serialize) -> Response<Body> {
    // Nothing here has keys that are no text, so this cannot fail.
    let text = serde_json::to_string(value).unwrap_or_default();
    typed("application/json", text + "\n")
}

fn typed(kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    set_type(&mut response, kind);
    response
}

fn set_type(response: &mut Response<Body>, kind: &'static str) {
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
}
