//! A request to a gateway, and its answer.

use super::base::Base;
use super::connect::{send, text};
use crate::dial::{Authorities, Error};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Response, StatusCode, header};
use serde_json::Value;
use std::time::Duration;

/// Time for an answer, its body included; streams have none.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom the requests go to, and in whose name.
#[derive(Clone, Debug)]
pub struct Client {
    base: Base,
    bearer: Option<String>,
    authorities: Authorities,
}

impl Client {
    /// A client of this gateway, with a key or token if there is one. Over TLS these authorities vouch for it.
    #[must_use]
    pub fn new(base: Base, key: Option<&str>, authorities: Authorities) -> Self {
        Self {
            base,
            bearer: key.map(|key| format!("Bearer {key}")),
            authorities,
        }
    }

    /// Where the requests go.
    #[must_use]
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// One request, and the whole answer.
    ///
    /// # Errors
    /// As [`send`], or [`Error::Broken`] if there is no answer in 30 s.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Error> {
        let url = self.base.url(path);
        let mut headers = headers.to_vec();
        headers.extend(self.bearer.as_deref().map(|key| ("authorization", key)));
        let asking = async {
            let answer = send(&self.authorities, method, &url, &headers, body.into()).await?;
            Answer::read(&url, answer).await
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        let late = |_| Error::Broken(format!("{url} does not answer within {PATIENCE:?}"));
        answer.unwrap_or_else(|why| Err(late(why)))
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// As [`send`].
    pub async fn open(
        &self,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<Response<Incoming>, Error> {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last_event_id.map(|id| ("last-event-id", id)));
        headers.extend(self.bearer.as_deref().map(|key| ("authorization", key)));
        let url = self.base.url(path);
        send(&self.authorities, "GET", &url, &headers, Bytes::new()).await
    }
}

/// What a gateway answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `Retry-After`, if it is in seconds.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: String,
    url: String,
    location: Option<String>,
}

impl Answer {
    /// The whole of an answer to a request for `url`.
    ///
    /// # Errors
    /// [`Error::Broken`], if it breaks off.
    pub async fn read(url: &str, answer: Response<Incoming>) -> Result<Self, Error> {
        let field = |name| {
            answer
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let seconds = field(header::RETRY_AFTER).and_then(|text| text.parse().ok());
        let location = field(header::LOCATION).map(str::to_owned);
        Ok(Self {
            status: answer.status(),
            retry_after: seconds.map(Duration::from_secs),
            location,
            url: url.to_owned(),
            body: text(answer).await?,
        })
    }

    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        self.retry_after.is_some() || matches!(self.status.as_u16(), 408 | 429 | 502..=504)
    }

    /// Whether what was sent is at fault, and not who sent it or where to.
    #[must_use]
    pub fn refuses_content(&self) -> bool {
        match self.status.as_u16() {
            // A proxy on the way has a bound of its own, and says so without a word.
            413 => true,
            400 | 409 | 422 | 507 => self.detail().is_some(),
            _ => false,
        }
    }

    /// What the gateway says is wrong (RFC 9457).
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        let detail = self.json().get("detail")?.as_str()?.to_owned();
        Some(detail)
    }

    /// Why it is not what was asked for, as a sentence.
    #[must_use]
    pub fn refusal(&self) -> String {
        let (status, url) = (self.status, &self.url);
        if let Some(location) = &self.location {
            return format!(
                "{url} answers {status}: it has moved to {location}; use that as --url"
            );
        }
        match self.detail() {
            Some(detail) if status == StatusCode::UNAUTHORIZED => format!(
                "{detail} ({status}); give a token in TIDEGATE_TOKEN; who publishes or deletes with a key gives it in TIDEGATE_PUBLISH_KEY"
            ),
            Some(detail) => format!("{detail} ({status})"),
            None => format!("{url} answers {status}, which is no answer of Tidegate: check --url"),
        }
    }
}
