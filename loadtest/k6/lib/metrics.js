// What the scripts count. The names are those of the summary, and with k6_ before them those in Prometheus.

import { Counter, Trend } from 'k6/metrics';

export const eventsRead = new Counter('events_read');
export const missingEvents = new Counter('missing_events');
export const repeatedEvents = new Counter('repeated_events');
export const gapEvents = new Counter('gap_events');
/** Subscribers that came to the last event of their topic. */
export const subscribersDone = new Counter('subscribers_done');
/** Streams that were opened with a cursor. */
export const streamResumes = new Counter('stream_resumes');
/** Streams that ended although nobody had asked for it, or that told nothing. */
export const streamCuts = new Counter('stream_cuts');
/** From the request to the first byte of the answer, or with k6/x/sse to the first event. */
export const streamTtfb = new Trend('stream_ttfb_ms');
/** From sending an event to seeing it on a stream that was open by then. Only with k6/x/sse. */
export const deliveryLatency = new Trend('delivery_latency_ms');
/** From when an event was due to the answer that it is published. */
export const publishLatency = new Trend('publish_ms');
