//! Which handler answers what, and what surrounds all of them.

use super::gate::{Methods, Unjudged, WithoutGate, get, post};
use super::gateway::Gateway;
use super::guard::{Guard, guarded};
use super::nowhere::{OPS_PATHS, PATHS, no_method, no_path};
use super::problem::Problem;
use super::{
    batch, cors, disconnect, health, publish, session, streams, subscribe, tickets, topics,
};
use crate::address::Client;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{from_fn_with_state, map_request};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::MethodFilter;
use axum::{Extension, Router};
use std::any::Any;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{
    MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::{DefaultOnFailure, TraceLayer};

/// Everything that the main listener serves.
pub fn router(gateway: Arc<Gateway>, guard: Guard, with_ops: bool) -> Router {
    let stream = |methods: Methods| {
        methods
            .and(MethodFilter::HEAD, subscribe::head)
            .and(MethodFilter::OPTIONS, allow)
    };
    let and_post = MethodFilter::POST;
    let mut router = Router::new()
        .route("/", get(page).into())
        .route(
            "/events",
            stream(get(subscribe::many).and(and_post, batch::many)).into(),
        )
        .route(
            "/events/{topic}",
            stream(get(subscribe::one).and(and_post, publish::one)).into(),
        )
        .route("/topics", get(topics::list).into())
        .route(
            "/topics/{topic}",
            get(topics::show)
                .and(MethodFilter::DELETE, topics::delete)
                .into(),
        )
        .route("/topics/{topic}/events", get(topics::events).into())
        .route("/disconnect", post(disconnect::disconnect).into())
        .route("/tickets", post(tickets::make).into())
        .route(
            "/session",
            post(session::begin)
                .and(MethodFilter::DELETE, session::end)
                .into(),
        );
    let mut paths = PATHS.to_vec();
    if with_ops {
        router = router.merge(ops_routes());
        paths.extend(OPS_PATHS);
    }
    layered(router, gateway, guard, paths)
}

/// What operators ask, for a listener of their own.
pub fn ops_router(gateway: Arc<Gateway>, guard: Guard) -> Router {
    // Whoever reaches this listener is an operator.
    let routes = ops_routes().layer(Extension(WithoutGate));
    layered(routes, gateway, guard, OPS_PATHS.to_vec())
}

fn ops_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/healthz", get(health::healthz).into())
        .route("/readyz", get(health::readyz).into())
        .route("/metrics", get(health::metrics).into())
        .route("/streams", get(streams::list).into())
}

/// Routes in all that surrounds them; `paths` are told to whoever asks for another.
fn layered(
    router: Router<Arc<Gateway>>,
    gateway: Arc<Gateway>,
    guard: Guard,
    paths: Vec<&'static str>,
) -> Router {
    let request_id = HeaderName::from_static("x-request-id");
    let origins = guard.origins().clone();
    let judged = router
        .fallback(|uri: Uri| async move { no_path(&uri, &paths) })
        .method_not_allowed_fallback(no_method)
        .with_state(gateway)
        .layer(from_fn_with_state(Arc::new(guard), guarded));
    // A page must see why it was refused, so this is outside.
    let marked = if origins.is_empty() {
        judged
    } else {
        judged.layer(from_fn_with_state(origins, cors::marked))
    };
    marked
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
        .layer(SetRequestIdLayer::new(request_id.clone(), RandomIds))
        .layer(map_request(move |request| {
            std::future::ready(without_odd_id(request, &request_id))
        }))
        .layer(SetSensitiveRequestHeadersLayer::new([
            header::AUTHORIZATION,
            header::COOKIE,
        ]))
}

/// Bytes of a request's name.
const REQUEST_ID_MAX: usize = 128;

/// The request, without a name that is too long. It is sent back and logged, and a proxy takes a replica for broken whose
/// heads are longer than its buffer.
fn without_odd_id(mut request: Request, name: &HeaderName) -> Request {
    let headers = request.headers_mut();
    if headers
        .get(name)
        .is_some_and(|id| id.len() > REQUEST_ID_MAX)
    {
        headers.remove(name);
    }
    request
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
    let client = request.extensions().get::<Client>();
    let address = client.map(|client| tracing::field::display(client.address));
    tracing::debug_span!("request", method = %request.method(), path = request.uri().path(), id, address)
}

fn caught(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request panicked");
    Problem::internal().into_response()
}

async fn allow(_: Unjudged) -> Response {
    let methods = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
    (StatusCode::NO_CONTENT, [(header::ALLOW, methods)]).into_response()
}

async fn page(_: Unjudged) -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    (
        [(header::CONTENT_SECURITY_POLICY, policy)],
        Html(include_str!("page.html")),
    )
}
