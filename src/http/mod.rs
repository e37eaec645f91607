//! HTTP: routes, admission, answers. The only part that knows status codes.
//!
//! | path | methods |
//! |---|---|
//! | `/events`, `/events/{topic}` | GET (stream), HEAD, POST, OPTIONS |
//! | `/topics`, `/topics/{topic}`, `/topics/{topic}/events` | GET, DELETE |
//! | `/healthz`, `/readyz`, `/metrics`, `/streams` | GET; on `ops.listen` if there is one |
//! | `/` | GET: the page |

pub mod accept;
mod auth;
mod cut;
mod health;
mod name;
mod problem;
mod publish;
mod query;
mod streams;
mod subscribe;
mod topics;

pub use auth::Auth;

use crate::broker::Broker;
use crate::config::{Limits, Publish};
use crate::follow::reads::Reads;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::stream::body::Bodies;
use crate::stream::registry::OpenStreams;
use crate::stream::settings::StreamSettings;
use crate::stream::sockets::Sockets;
use crate::swap::Swap;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use problem::Problem;
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{
    MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::{DefaultOnFailure, TraceLayer};

/// What requests are judged by. A reload of the configuration replaces it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "parts that are documented where they are made")]
pub struct Rules {
    pub auth: Auth,
    pub limits: Limits,
}

/// What the handlers share.
#[derive(Debug)]
#[expect(missing_docs, reason = "parts that are documented where they are made")]
pub struct Gateway {
    pub hub: Arc<Hub>,
    pub broker: Arc<Broker>,
    pub reads: Reads,
    pub streams: Arc<StreamSettings>,
    pub metrics: Arc<Metrics>,
    pub rules: Swap<Rules>,
    pub publish: Publish,
    pub publishing: Semaphore,
    pub open_wait: Duration,
    pub open_streams: Arc<OpenStreams>,
    pub bodies: Arc<Bodies>,
    /// The threads that own sockets; not set if all streams go out as bodies.
    pub sockets: OnceLock<Arc<Sockets>>,
    pub reached: Arc<AtomicBool>,
    /// The balancer is to send nobody any more; what comes is served until the drain begins.
    pub leaving: AtomicBool,
}

impl Gateway {
    /// Whether this replica is going.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }
}

/// Everything that the main listener serves.
pub fn router(gateway: Arc<Gateway>, with_ops: bool) -> Router {
    let stream = |methods: MethodRouter<Arc<Gateway>>| methods.head(subscribe::head).options(allow);
    let mut router = Router::new()
        .route("/", get(page))
        .route("/events", stream(get(subscribe::many).post(publish::batch)))
        .route(
            "/events/{topic}",
            stream(get(subscribe::one).post(publish::one)),
        )
        .route("/topics", get(topics::list))
        .route("/topics/{topic}", get(topics::show).delete(topics::delete))
        .route("/topics/{topic}/events", get(topics::events));
    if with_ops {
        router = router.merge(ops_routes());
    }
    layered(router, gateway)
}

/// What operators ask, for a listener of their own.
pub fn ops_router(gateway: Arc<Gateway>) -> Router {
    layered(ops_routes(), gateway)
}

fn ops_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/streams", get(streams::list))
}

fn layered(router: Router<Arc<Gateway>>, gateway: Arc<Gateway>) -> Router {
    let request_id = HeaderName::from_static("x-request-id");
    router
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .with_state(gateway)
        .layer(SetResponseHeaderLayer::if_not_present(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .layer(CatchPanicLayer::custom(caught))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                // Whoever finds a fault says so once; an answer of 503 is no error of this process.
                .on_failure(DefaultOnFailure::new().level(tracing::Level::DEBUG)),
        )
        .layer(SetRequestIdLayer::new(request_id, RandomIds))
        .layer(SetSensitiveRequestHeadersLayer::new([
            header::AUTHORIZATION,
            header::COOKIE,
        ]))
}

/// Names requests that come without a name: 32 hexadecimal digits, as nginx's `$request_id`. They
/// are not secrets, so they come from a generator that asks the kernel only for its seed.
#[derive(Clone, Copy, Debug)]
struct RandomIds;

impl MakeRequestId for RandomIds {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        let id = format!("{:032x}", rand::random::<u128>());
        HeaderValue::try_from(id).ok().map(RequestId::new)
    }
}

/// The path, never the query: it may carry a token.
fn span(request: &Request) -> tracing::Span {
    let id = request
        .headers()
        .get("x-request-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    tracing::debug_span!("request", method = %request.method(), path = request.uri().path(), id)
}

fn caught(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request panicked");
    Problem::internal().into_response()
}

async fn allow() -> Response {
    let methods = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
    (StatusCode::NO_CONTENT, [(header::ALLOW, methods)]).into_response()
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    (
        [(header::CONTENT_SECURITY_POLICY, policy)],
        Html(include_str!("page.html")),
    )
}
