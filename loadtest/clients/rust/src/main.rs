//! Reads a stream with the crate `eventsource-client`: `tidegate-client plain|remedy URL`

use eventsource_client::{Client as _, ClientBuilder, Error, Event, ReconnectOptions, SSE};
use futures::{StreamExt as _, TryStreamExt as _};
use launchdarkly_sdk_transport::HyperTransport;
use std::time::Duration;

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments[1].as_str() {
        "plain" => plain(&arguments[2]).await,
        _ => remedy(&arguments[2]).await,
    }
}

/// As the README shows.
async fn plain(url: &str) -> Outcome {
    let transport = HyperTransport::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .build_http()?;
    let client = ClientBuilder::for_url(url)?.build_with_transport(transport);
    let mut stream = client.stream();
    while let Some(event) = stream.try_next().await? {
        if let SSE::Event(event) = event {
            show(&event);
        }
    }
    Ok(())
}

async fn remedy(url: &str) -> Outcome {
    // remedy
    let three_heartbeats = HyperTransport::builder().read_timeout(Duration::from_secs(45));
    let transport = three_heartbeats.build_http()?;
    let again = ReconnectOptions::reconnect(true).retry_initial(true);
    let client = ClientBuilder::for_url(url)?.reconnect(again.build());
    let mut stream = client.build_with_transport(transport).stream();
    while let Some(event) = stream.next().await {
        match event {
            Ok(SSE::Event(event)) => show(&event),
            Ok(SSE::Connected(to)) if to.response().status() == 204 => break,
            Err(Error::UnexpectedResponse(to, _)) if to.status() == 400 => break,
            _ => {} // It comes back by itself.
        }
    }
    // end of remedy
    Ok(())
}

fn show(event: &Event) {
    let id = event.id.as_deref().unwrap_or_default();
    let said = serde_json::json!({ "id": id, "type": event.event_type, "data": event.data });
    println!("{said}");
}
