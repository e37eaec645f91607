#!/usr/bin/env python3
"""The dashboards, and what each panel shows. Grafana reads the JSON beside this, which this writes:

    grafana/dashboards.py            writes grafana/dashboards/*.json
    grafana/dashboards.py --check    are they what this would write? Exit 1 if not

In a query `name{}` stands for the metric of the chosen replicas, and `[r]` for an interval that fits: see panels.py.
A description says what is normal and where to look if it is not. docs/metrics.md has every metric.
"""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from panels import dashboard, heat, lines, quantile, stat, states, steps, table  # noqa: E402

FOLDER = Path(__file__).resolve().parent / "dashboards"

LATE = steps("green", (0.25, "orange"), (1, "red"))
FULL = steps("green", (0.8, "orange"), (0.95, "red"))
NONE_IS_GOOD = steps("green", (0.5, "orange"))
DRAWN_LATE = steps("transparent", (0.25, "orange"), (1, "red"))
DRAWN_FULL = steps("transparent", (0.8, "orange"), (0.95, "red"))
UP = {0: ("down", "red"), 1: ("up", "green")}

OPEN = "sum(tidegate_open_connections{})"
LATENCY = "tidegate_delivery_latency_seconds_bucket{}"
COMMANDS = 'tidegate_redis_round_trip_seconds_bucket{role="commands"}'
# What is told although nothing was lost on our side: a cursor that no server gave, or one older than the retention.
LOSS = 'reason=~"ahead|log_lost|rewound|late"'


def by_instance(metric):
    return f"sum by (instance) (rate({metric}{{}}[r]))", "{{instance}}"


def open_streams(width=4):
    what = """Streams open now, over all chosen replicas. Normal is what it was at this hour of other days; a step
    down is a drop of many at once."""
    return stat("Open streams", what, OPEN, "streams", "short", decimals=0, width=width)


def latency_now(width=4):
    what = """99 of 100 live deliveries were faster, from the event's id to the socket. Normal: below 50 ms. The
    clocks of Redis and of the replicas count, so a constant offset is a clock."""
    return stat("Delivery latency p99", what, quantile(0.99, LATENCY), "p99", "s", LATE, width=width)


def gaps_in_range(width=4):
    what = """tidegate.gap events told in this time range because events were lost: log_lost, rewound, late, ahead. 0
    is the promise kept. The interval itself matters, so it counts over the whole range."""
    expr = f"sum(increase(tidegate_gaps_total{{{LOSS}}}[range]))"
    return stat("Gaps of loss", what, expr, "gaps", "short", NONE_IS_GOOD, instant=True, decimals=0, width=width)


def readiness(width=8):
    what = """Each replica over time. Draining: it was asked to stop and cuts its streams in slices. Not ready: Redis was not
    reached yet, or refuses what is needed; its log says what. Down: Prometheus cannot scrape it."""
    expr = "(tidegate_ready{} + 2 * tidegate_draining{}) or (up{} - 1)"
    words = {
        -1: ("down", "red"),
        0: ("not ready", "orange"),
        1: ("ready", "green"),
        2: ("draining", "blue"),
        3: ("draining", "blue"),
    }
    return states("Readiness", what, expr, "{{instance}}", words, width)


def redis_roles(width=8):
    what = """Whether the connections work: commands (publishing and reading the log), live (frames of all topics), ear (raw
    publishes; down is normal on replicas that are not among the first ingest.ears)."""
    return states("Connections to Redis", what, "tidegate_redis_up{}", "{{instance}} {{role}}", UP, width)


def overview():
    return dashboard(
        "tidegate-overview",
        "Tidegate / Overview",
        """The fleet, in the order in which an operator asks: is all well, who listens, what flows, what does it cost. Click a
        replica's line for the replica.""",
        [
            (
                "Is all well?",
                [
                    stat(
                        "Alerts firing",
                        "Of deploy/prometheus/rules. Normal: 0. Below stands which, and docs/operations.md says what to do.",
                        'count(ALERTS{alertstate="firing"}) or vector(0)',
                        "firing",
                        limits=steps("green", (1, "red")),
                        decimals=0,
                        width=3,
                    ),
                    stat(
                        "Not ready",
                        """Replicas that take no new streams, or cannot be scraped: Readiness below says which, and why. Normal:
                        0, but for those that start or go.""",
                        "count(up{} == 0 or tidegate_ready{} == 0) or vector(0)",
                        "not ready",
                        limits=steps("green", (1, "orange")),
                        decimals=0,
                        width=3,
                    ),
                    open_streams(width=3),
                    latency_now(width=3),
                    gaps_in_range(width=3),
                    stat(
                        "Publishing that fails",
                        """Share of publishes over HTTP that were refused through no fault of the publisher: the log is away, full
                        or busy. Normal: 0.""",
                        """sum(rate(tidegate_publish_refused_total{reason=~"unavailable|busy|internal|limit"}[r]))
                        / (sum(rate(tidegate_publish_duration_seconds_count{}[r])
                        or rate(tidegate_publish_refused_total{reason="busy"}[r])) > 0) or vector(0)""",
                        "fails",
                        "percentunit",
                        steps("green", (0.001, "orange"), (0.05, "red")),
                        width=3,
                    ),
                    stat(
                        "Fullest replica",
                        """Streams of the fullest replica, of limits.streams_max. Above 80 %: add a replica, or raise
                        the limit if memory and descriptors allow.""",
                        """max(sum by (instance) (tidegate_open_connections{}) / sum by (instance)
                        (tidegate_connections_limit{}))""",
                        "full",
                        "percentunit",
                        FULL,
                        width=3,
                    ),
                    stat(
                        "nginx that answer",
                        """At their address for operators. Fewer than there are: some clients do not get in. Nothing: Prometheus has
                        no job tidegate-nginx.""",
                        'sum(up{job="tidegate-nginx"})',
                        "answer",
                        limits=steps("red", (1, "green")),
                        decimals=0,
                        width=3,
                    ),
                    states(
                        "Alerts that fire",
                        "Each alert for as long as it fires. Nothing is good. docs/operations.md has a paragraph for each.",
                        'max by (alertname, severity) (ALERTS{alertstate="firing"})',
                        "{{severity}}: {{alertname}}",
                        {1: ("fires", "red")},
                    ),
                    readiness(),
                    redis_roles(),
                    lines(
                        "Gaps told, a minute, by reason",
                        """bad_cursor is the client's fault. trimmed and expired: clients were away for longer than the log reaches
                        back (log.events_max, log.age_max). Anything else is loss, and is 0 on a normal day.""",
                        ("60 * sum by (reason) (rate(tidegate_gaps_total{}[r]))", "{{reason}}"),
                        stack=True,
                    ),
                ],
            ),
            (
                "Streams",
                [
                    lines(
                        "Open streams, by replica",
                        """Even, once streams have been there for stream.age_max: each is cut by then and comes back
                        through least_conn.""",
                        ("sum by (instance) (tidegate_open_connections{})", "{{instance}}"),
                    ),
                    lines(
                        "Opened and closed, a second",
                        """Both lie close together. Far above the number of open streams divided by stream.age_max: streams do not
                        last, see the reasons beside it.""",
                        ("sum(rate(tidegate_connections_opened_total{}[r]))", "opened"),
                        ("sum(rate(tidegate_connections_closed_total{}[r]))", "closed"),
                        unit="cps",
                    ),
                    lines(
                        "Closed, by reason",
                        """Mostly client and age. drain: a deploy. held: a hole in a topic was not mended within repair.time, look at
                        Redis. limit and ended are what clients and publishers asked for.""",
                        ("sum by (reason) (rate(tidegate_connections_closed_total{}[r]))", "{{reason}}"),
                        unit="cps",
                        stack=True,
                    ),
                    lines(
                        "Refused, by reason",
                        """Normal: 0. limit: the fleet is full. draining: the balancer still sends streams to a
                        replica that goes. bad_request: a client asks for what cannot be. address: one has as much as it
                        may.""",
                        ("sum by (reason) (rate(tidegate_connections_refused_total{}[r]))", "{{reason}}"),
                        unit="cps",
                        stack=True,
                    ),
                    lines(
                        "Balance",
                        """Streams of the fullest replica over the average. Near 1; after a replica joins it takes
                        stream.age_max to come back there.""",
                        (
                            """max(sum by (instance) (tidegate_open_connections{}))
                            / (avg(sum by (instance) (tidegate_open_connections{})) > 0)""",
                            "fullest over average",
                        ),
                        unit="none",
                        limits=steps("transparent", (1.5, "orange")),
                    ),
                    lines(
                        "Room for streams",
                        """Streams of each replica, of limits.streams_max. Above the line it is time for another
                        replica.""",
                        (
                            """sum by (instance) (tidegate_open_connections{})
                            / sum by (instance) (tidegate_connections_limit{})""",
                            "{{instance}}",
                        ),
                        unit="percentunit",
                        limits=DRAWN_FULL,
                        top=1,
                    ),
                ],
            ),
            (
                "The way in",
                [
                    lines(
                        "Clients of nginx",
                        """Connections of clients. answered: streams, above all; a step down is many that were cut. waiting: for
                        their next request. None at all while replicas are ready: clients do not reach nginx.""",
                        ("sum by (instance) (nginx_connections_writing{})", "answered, {{instance}}"),
                        ("sum by (instance) (nginx_connections_waiting{})", "waiting, {{instance}}"),
                        links=False,
                    ),
                    lines(
                        "Streams that nginx sent away, by reason",
                        """With 200 and the advice to come back. Normal: 0. no_replica: all are away, full or going. limited: the
                        address has as much as nginx allows. Nothing: no mtail reads its log.""",
                        ("sum by (reason) (rate(nginx_streams_sent_away_total{}[r]))", "{{reason}}"),
                        unit="cps",
                        stack=True,
                    ),
                    states(
                        "Probe from outside",
                        """Whether a stream of a replica opens where clients open theirs. Nothing: Prometheus has no job
                        tidegate-probe.""",
                        "probe_success{}",
                        "{{instance}}",
                        {0: ("fails", "red"), 1: ("opens", "green")},
                    ),
                    lines(
                        "Held back by address, by limit, all replicas",
                        """An address had as much as one may (limits.address). replays: a read of the log waited. The others:
                        refused. not limited: more addresses came than are known. Steady: a script, or a company behind one
                        address; GET /streams names it.""",
                        ("sum by (limit) (rate(tidegate_address_limited_total{}[r]))", "{{limit}}"),
                        ("sum(rate(tidegate_addresses_beyond_total{}[r]))", "not limited"),
                        unit="cps",
                    ),
                    lines(
                        "Refused by address, by what",
                        """Streams are told to come back, publishes are answered 429. Beside it on the right the addresses that
                        replicas know: at limits.address.entries_max the rest is not limited.""",
                        ('sum(rate(tidegate_connections_refused_total{reason="address"}[r]))', "streams"),
                        ('sum(rate(tidegate_publish_refused_total{reason="address"}[r]))', "publishes"),
                        ("max(tidegate_addresses{})", "addresses known"),
                        unit="cps",
                        right=("addresses known", "short"),
                    ),
                ],
            ),
            (
                "Events",
                [
                    lines(
                        "Published, by source",
                        """Events this fleet put into the log. Publishes straight through the function of Redis are
                        seen by no replica, and are delivered all the same.""",
                        ("sum by (source) (rate(tidegate_events_published_total{}[r]))", "{{source}}"),
                        unit="cps",
                        stack=True,
                    ),
                    lines(
                        "Published over HTTP, by publisher",
                        """A name of auth.publishers, publish_key, token, or anyone where no key is asked for.""",
                        ("sum by (publisher) (rate(tidegate_published_by_total{}[r]))", "{{publisher}}"),
                        unit="cps",
                        stack=True,
                    ),
                    lines(
                        "Publishing refused, by reason",
                        """unavailable, busy, limit and internal are ours; the others are what publishers got wrong. busy: more are under way
                        than this replica takes at a time.""",
                        ("sum by (reason) (rate(tidegate_publish_refused_total{}[r]))", "{{reason}}"),
                        unit="cps",
                        stack=True,
                    ),
                    lines(
                        "Publishing, how long it takes",
                        """From a publish over HTTP that was read to the log's answer. Normal: a few milliseconds. It
                        follows the round trip of Redis.""",
                        (quantile(0.5, "tidegate_publish_duration_seconds_bucket{}"), "p50"),
                        (quantile(0.99, "tidegate_publish_duration_seconds_bucket{}"), "p99"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Delivered, by replica",
                        "Events written to streams: each published event times its subscribers. Follows Published.",
                        by_instance("tidegate_events_delivered_total"),
                        unit="cps",
                        stack=True,
                    ),
                    lines(
                        "Bytes sent, by replica",
                        """Bodies of streams, without HTTP's own framing and TLS. Compare it with the network card of
                        the replica.""",
                        by_instance("tidegate_sent_bytes_total"),
                        unit="Bps",
                        stack=True,
                    ),
                    lines(
                        "Publishes under way",
                        """Publishes over HTTP that wait for the log, by replica. Normal: a few. At
                        publish.in_flight_max they are answered 503.""",
                        ("sum by (instance) (tidegate_publishes_in_flight{})", "{{instance}}"),
                    ),
                    lines(
                        "Bodies on their way, by replica",
                        """Publishes over HTTP whose bodies come or are worked on, and on the right the memory that all of
                        them take. At publish.bodies_max or publish.bodies_bytes_max more are answered 503.""",
                        ("sum by (instance) (tidegate_publish_bodies{})", "{{instance}}"),
                        ("sum(tidegate_publish_bodies_bytes{})", "bytes"),
                        right=("bytes", "bytes"),
                    ),
                ],
            ),
            (
                "The fleet and what it costs",
                [
                    table(
                        "Versions",
                        "Builds that run, and on how many replicas. More than one only while a rollout goes on.",
                        "count by (version, revision) (tidegate_build_info{})",
                        {"version": "Version", "revision": "Revision", "Value": "Replicas"},
                        width=12,
                    ),
                    stat(
                        "Different settings",
                        """How many different configurations run, names and addresses and secrets aside. 1 except
                        during a rollout.""",
                        'count(count_values("hash", tidegate_config_hash{}))',
                        "settings",
                        limits=steps("green", (2, "orange")),
                        decimals=0,
                        height=8,
                    ),
                    stat(
                        "Replicas that miss others",
                        """Replicas that hear of fewer others than are scraped: they do not share one Redis or one
                        redis.prefix. Normal: 0.""",
                        "count(tidegate_replicas{} < scalar(count(tidegate_ready{}))) or vector(0)",
                        "replicas",
                        limits=NONE_IS_GOOD,
                        decimals=0,
                        height=8,
                    ),
                    stat(
                        "Refused settings",
                        """Replicas whose file was refused at the last reload (SIGHUP), or whose new way to Redis does
                        not work. They go on with what they had, and would not start again. Normal: 0.""",
                        "sum(tidegate_config_refused{}) + sum(tidegate_redis_access_refused{})",
                        "replicas",
                        limits=NONE_IS_GOOD,
                        decimals=0,
                        height=8,
                    ),
                    lines(
                        "Uptime, by replica",
                        "Saw teeth without a rollout are crashes.",
                        ("time() - max by (instance) (process_start_time_seconds{})", "{{instance}}"),
                        unit="s",
                    ),
                    lines(
                        "CPU, by replica",
                        """Cores in use. Follows deliveries; without them it follows the number of streams, by their
                        heartbeats.""",
                        by_instance("process_cpu_seconds_total"),
                        unit="none",
                    ),
                    lines(
                        "Memory, by replica",
                        """Resident memory. Follows the number of streams and the windows; docs/operations.md has the
                        figures for one stream.""",
                        ("sum by (instance) (process_resident_memory_bytes{})", "{{instance}}"),
                        unit="bytes",
                    ),
                    lines(
                        "File descriptors used",
                        "Of the limit of each process. A stream takes one; at 100 % nobody can connect.",
                        (
                            "sum by (instance) (process_open_fds{}) / sum by (instance) (process_max_fds{})",
                            "{{instance}}",
                        ),
                        unit="percentunit",
                        limits=DRAWN_FULL,
                        top=1,
                    ),
                    lines(
                        "Reloads, a minute, by outcome",
                        """Times that SIGHUP had the configuration read again. refused: the file is at fault, the log
                        says where.""",
                        ("60 * sum by (outcome) (rate(tidegate_config_reloads_total{}[r]))", "{{outcome}}"),
                    ),
                ],
            ),
        ],
    )


def replica():
    return dashboard(
        "tidegate-replica",
        "Tidegate / Replica",
        "One replica: its streams, its way to Redis, its threads, and what the kernel says of it.",
        [
            (
                "Now",
                [
                    open_streams(),
                    latency_now(),
                    gaps_in_range(),
                    stat(
                        "CPU",
                        "Cores in use. Follows deliveries; all of the machine's in use: this replica is the limit.",
                        "sum(rate(process_cpu_seconds_total{}[r]))",
                        "cores",
                        decimals=2,
                    ),
                    stat(
                        "Memory",
                        """Resident memory. Set the limit of the container well above it: streams that come back after
                        a deploy are more than now.""",
                        "sum(process_resident_memory_bytes{})",
                        "resident",
                        "bytes",
                    ),
                    stat(
                        "Uptime",
                        "Since the process started.",
                        "time() - max(process_start_time_seconds{})",
                        "uptime",
                        "s",
                    ),
                    readiness(),
                    redis_roles(),
                    table(
                        "Build",
                        "Which build runs here.",
                        "tidegate_build_info{}",
                        {"version": "Version", "revision": "Revision", "instance": "Replica", "job": "Job"},
                    ),
                ],
            ),
            (
                "Streams",
                [
                    lines(
                        "Open streams, by way out",
                        """socket: written by the engine's own threads, the cheap way. body: HTTP/2, streams with limit or max_age, or
                        engine.sockets = false. Behind the shipped nginx nearly all are socket.""",
                        ("sum by (way) (tidegate_open_connections{})", "{{way}}"),
                        ("sum(tidegate_connections_limit{})", "limit"),
                        stack=False,
                    ),
                    lines(
                        "Connections",
                        """All client connections, streams and requests, of server.connections_max. At the limit new
                        ones wait in the accept queue.""",
                        ("sum(tidegate_sockets{})", "connections"),
                        ("sum(tidegate_sockets_limit{})", "limit"),
                    ),
                    lines(
                        "Opened, closed, refused, a second",
                        "Opened and closed lie close together, refused is 0.",
                        ("sum(rate(tidegate_connections_opened_total{}[r]))", "opened"),
                        ("sum(rate(tidegate_connections_closed_total{}[r]))", "closed"),
                        ("sum(rate(tidegate_connections_refused_total{}[r]))", "refused"),
                        unit="cps",
                    ),
                    lines(
                        "Streams that are behind",
                        """Normal: near 0, with peaks of reading when many come back. blocked for long: clients or the way to
                        them are slow, GET /streams?sort=lag names them. reading for long: Redis is slow or away.""",
                        ("sum by (state) (tidegate_streams_behind{})", "{{state}}"),
                    ),
                    lines(
                        "Begin of a stream, how long it takes",
                        """From the request to the head. A known topic takes microseconds, a new one a round trip to Redis. At
                        stream.open_wait the head goes out without waiting on: Redis does not confirm subscriptions.""",
                        (quantile(0.5, "tidegate_connection_start_seconds_bucket{}"), "p50"),
                        (quantile(0.99, "tidegate_connection_start_seconds_bucket{}"), "p99"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    heat(
                        "Age of streams when they close",
                        """A band near stream.age_max is normal. A band at the idle time-out of some proxy (60 s) is
                        that proxy cutting streams.""",
                        "tidegate_connection_age_seconds_bucket{}",
                        "s",
                    ),
                    lines(
                        "Heartbeats, a second",
                        """About open streams divided by stream.heartbeat, less on busy streams. 0 while streams are
                        open and quiet: the threads stand still.""",
                        ("sum(rate(tidegate_heartbeats_sent_total{}[r]))", "heartbeats"),
                        unit="cps",
                    ),
                ],
            ),
            (
                "Work",
                [
                    lines(
                        "Threads that write streams",
                        """Processor time of each, a second. Near 1: this thread is the limit; raise engine.threads
                        while there are cores, else add a replica.""",
                        ("sum by (thread) (rate(tidegate_stream_thread_busy_seconds_total{}[r]))", "thread {{thread}}"),
                        unit="percentunit",
                        limits=DRAWN_FULL,
                    ),
                    lines(
                        "Threads that stand",
                        """Threads that write streams and have not gone on for engine.stall_after. Normal: 0. Their streams are
                        silent, and after engine.stall_max the process ends with exit code 70.""",
                        ("sum(tidegate_stream_threads_standing{})", "standing"),
                    ),
                    lines(
                        "Sweep of the fan-out",
                        """One round of a thread over the streams that an event concerns. The last stream of a sweep
                        waits that long. Normal: below 10 ms for 10,000 streams.""",
                        (quantile(0.5, "tidegate_fanout_sweep_seconds_bucket{}"), "p50"),
                        (quantile(0.99, "tidegate_fanout_sweep_seconds_bucket{}"), "p99"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Delivered and sent",
                        "Events a second, and bytes a second on the right.",
                        ("sum(rate(tidegate_events_delivered_total{}[r]))", "events"),
                        ("sum(rate(tidegate_sent_bytes_total{}[r]))", "bytes"),
                        unit="cps",
                        right=("bytes", "Bps"),
                    ),
                    lines(
                        "Runtime: busy",
                        """Share of time that the runtime's threads work: requests, Redis, streams as bodies. Near 1:
                        publishing and new streams wait.""",
                        (
                            "sum(rate(tidegate_runtime_busy_seconds_total{}[r])) / sum(tidegate_runtime_workers{})",
                            "busy",
                        ),
                        unit="percentunit",
                        limits=DRAWN_FULL,
                        top=1,
                    ),
                    lines(
                        "Runtime: tasks",
                        """tasks: that live, about one for each request, stream as a body and connection to Redis.
                        waiting: for a thread, 0 most of the time.""",
                        ("sum(tidegate_runtime_tasks{})", "tasks"),
                        ("sum(tidegate_runtime_queue{})", "waiting"),
                    ),
                    lines(
                        "Lines of the log, dropped a second",
                        """Normal: 0. Whoever reads standard error is slow or stands still; streams do not wait for it. What the
                        log would say of now is missing there.""",
                        ("sum(rate(tidegate_log_lines_dropped_total{}[r]))", "dropped"),
                        unit="cps",
                    ),
                    lines(
                        "Topics and windows",
                        """Topics that streams here read, and on the right the memory of their windows:
                        window.bytes_max a topic at most, and at window.total_bytes_max the largest give up events;
                        and of pages of the log, for streams that are behind: at limits.page_bytes_max reads wait.
                        answers: of GET /topics and below, not taken yet: at limits.answer_bytes_max some break off.""",
                        ("sum(tidegate_topics{})", "topics"),
                        ("sum(tidegate_window_bytes{})", "windows"),
                        ("sum(tidegate_page_bytes{})", "pages"),
                        ("sum(tidegate_answer_bytes{})", "answers"),
                        ("sum(rate(tidegate_page_waits_total{}[r]))", "reads that wait"),
                        ("sum(rate(tidegate_answers_given_up_total{}[r]))", "answers given up"),
                        ("sum(rate(tidegate_window_evicted_events_total{}[r]))", "events given up"),
                        right=("windows|pages|answers", "bytes"),
                    ),
                ],
            ),
            (
                "The way to Redis",
                [
                    lines(
                        "Round trip",
                        """commands: a function's answer. live: a tick through the live path; it is asked for only in
                        silence, so a busy replica has none.""",
                        (quantile(0.5, "tidegate_redis_round_trip_seconds_bucket{}", "role"), "p50 {{role}}"),
                        (quantile(0.99, "tidegate_redis_round_trip_seconds_bucket{}", "role"), "p99 {{role}}"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Pool of command connections",
                        "waiting above 0 for long: all of redis.pool_size are busy, or Redis is slow.",
                        ("sum by (state) (tidegate_redis_pool{})", "{{state}}"),
                    ),
                    lines(
                        "Errors, by role and kind",
                        """Normal: 0. unavailable: no connection or no answer in time. out_of_memory: Redis is full.
                        refused: rights or settings, the log says which.""",
                        ("sum by (role, kind) (rate(tidegate_redis_errors_total{}[r]))", "{{role}} {{kind}}"),
                        unit="cps",
                    ),
                ],
            ),
            (
                "The kernel",
                [
                    lines(
                        "Accept queue",
                        """Connections that wait to be accepted. 0 but for moments; it stands above 0 at
                        server.connections_max, or when the runtime has no time.""",
                        ("sum(tidegate_accept_queue{})", "waiting"),
                        ("sum(rate(tidegate_listen_overflows_total{}[r]))", "turned away, a second"),
                        ("sum(rate(tidegate_accept_errors_total{}[r]))", "failed, a second"),
                    ),
                    lines(
                        "Requests refused for what they are, by reason",
                        """Before any handler saw them. cross_site and host: a page in a browser would write or read here.
                        forwarded: a proxy passes writes on, and there is no publish key. Floods are connections that were closed.""",
                        ("sum by (reason) (rate(tidegate_requests_refused_total{}[r]))", "{{reason}}"),
                        ("max(tidegate_forwarded_without_key{})", "reached from elsewhere without a key"),
                        ("sum(rate(tidegate_http2_floods_total{}[r]))", "floods over HTTP/2"),
                        unit="cps",
                    ),
                    lines(
                        "Without the right, by reason",
                        """Requests that had not the right to what they asked for. missing and expired are usual: pages that
                        come for a token. key, signature: a key was replaced at one side only, or somebody tries. tokens known: verified
                        before, and not verified again.""",
                        ("sum by (reason) (rate(tidegate_auth_refused_total{}[r]))", "{{reason}}"),
                        ("sum(tidegate_tokens_known{})", "tokens known"),
                        unit="cps",
                        right=("tokens known", "none"),
                    ),
                    lines(
                        "Key sets of identity providers, by state",
                        """Of auth.keys with a url. stale: the last fetch failed, and the last good set serves. away: nothing serves,
                        and streams with its tokens come back without end. age: of the oldest that serves.""",
                        ("sum by (state) (tidegate_jwks_sets{})", "{{state}}"),
                        ("sum(tidegate_jwks_tokens_waiting{})", "tokens waiting"),
                        ("sum by (outcome) (increase(tidegate_jwks_refreshes_total{}[r]))", "fetched: {{outcome}}"),
                        ("max(tidegate_jwks_age_seconds{})", "age"),
                        right=("age", "s"),
                    ),
                    lines(
                        "Taken back",
                        """Subjects, tokens and topics whose rights were taken back and are kept in Redis. age: how long ago each replica has
                        read them. Above a second, streams that come with a token show nothing there.""",
                        ("max(tidegate_denied_entries{})", "entries"),
                        ("max by (instance) (tidegate_denied_read_age_seconds{})", "age {{instance}}"),
                        unit="s",
                        right=("entries", "none"),
                    ),
                    lines(
                        "Tickets, by what became of them",
                        """made: given to a page. used: a stream was opened by it. Those that nobody uses are over after
                        auth.ticket_life. limit: one user had auth.tickets_each_max that wait. away: Redis is away, so none could be kept.""",
                        ("sum by (outcome) (rate(tidegate_tickets_total{}[r]))", "{{outcome}}"),
                        unit="cps",
                    ),
                    lines(
                        "Held back by address, by limit",
                        """An address had as much as one may (limits.address). replays: a read of the log waited. The others:
                        refused. not limited: more addresses came than are known.""",
                        ("sum by (limit) (rate(tidegate_address_limited_total{}[r]))", "{{limit}}"),
                        ("sum(rate(tidegate_addresses_beyond_total{}[r]))", "not limited"),
                        ("sum by (reason) (rate(tidegate_proxy_protocol_refused_total{}[r]))", "PROXY: {{reason}}"),
                        ("sum(tidegate_addresses{})", "addresses known"),
                        unit="cps",
                        right=("addresses known", "none"),
                    ),
                    lines(
                        "Bodies that nobody wanted, by what became of them",
                        """Of requests that were refused before they were read. whole: read and thrown away. bytes and
                        time: too much of it, and the connection was closed.""",
                        ("sum by (outcome) (rate(tidegate_discarded_bodies_total{}[r]))", "{{outcome}}"),
                        unit="cps",
                        stack=True,
                    ),
                    lines(
                        "File descriptors",
                        "A stream takes one. At the limit nobody can connect.",
                        ("sum(process_open_fds{})", "open"),
                        ("sum(process_max_fds{})", "limit"),
                    ),
                    lines(
                        "Memory and threads",
                        "Resident memory, and the threads of the process on the right, which do not grow.",
                        ("sum(process_resident_memory_bytes{})", "resident"),
                        ("sum(process_threads{})", "threads"),
                        unit="bytes",
                        right=("threads", "none"),
                    ),
                ],
            ),
        ],
        one_replica=True,
    )


def redis_and_ingest():
    trip = "tidegate_redis_round_trip_seconds_bucket{}"
    return dashboard(
        "tidegate-redis",
        "Tidegate / Redis and ingest",
        """Redis as the replicas see it: connections, answers, memory; and the ears that bring raw publishes into the
        log.""",
        [
            (
                "Now",
                [
                    stat(
                        "Replicas without Redis",
                        """Replicas whose commands or live path do not work. Their streams stay open and wait;
                        publishing is answered 503. Normal: 0.""",
                        'count(count by (instance) (tidegate_redis_up{role=~"commands|live"} == 0)) or vector(0)',
                        "replicas",
                        limits=steps("green", (1, "red")),
                        decimals=0,
                    ),
                    stat(
                        "Round trip p99",
                        "99 of 100 answers of Redis' functions came sooner. Normal: a few milliseconds.",
                        quantile(0.99, COMMANDS),
                        "p99",
                        "s",
                        LATE,
                    ),
                    stat(
                        "Redis memory used",
                        "Of maxmemory; nothing if there is no limit. At 100 % publishing is refused.",
                        "max(tidegate_redis_memory_bytes{} / (tidegate_redis_memory_max_bytes{} > 0)) or vector(0)",
                        "used",
                        "percentunit",
                        FULL,
                    ),
                    stat(
                        "Redis may evict",
                        """Replicas that see another maxmemory-policy than noeviction. Above 0: the log may be lost
                        key by key.""",
                        "sum(tidegate_redis_may_evict{})",
                        "replicas",
                        limits=NONE_IS_GOOD,
                        decimals=0,
                    ),
                    stat(
                        "Ears",
                        "Replicas that hear raw publishes: ingest.ears of them. 0: a raw PUBLISH is lost.",
                        'sum(tidegate_redis_up{role="ear"})',
                        "ears",
                        limits=steps("red", (1, "green")),
                        decimals=0,
                    ),
                    stat(
                        "Raw publishes, oldest owed",
                        """How long the oldest raw publish waits to be logged. Normal: below 10 ms on the ear that
                        appends, below 0.6 s on the others.""",
                        "min(tidegate_ingest_lag_seconds{})",
                        "lag",
                        "s",
                        steps("green", (2, "orange"), (10, "red")),
                    ),
                ],
            ),
            (
                "Redis",
                [
                    redis_roles(),
                    lines(
                        "Round trip, by role",
                        """commands: a function's answer, waiting for a connection included. live: a tick through the
                        live path, asked for only in silence.""",
                        (quantile(0.5, trip, "role"), "p50 {{role}}"),
                        (quantile(0.99, trip, "role"), "p99 {{role}}"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Round trip p99 of commands, by replica",
                        """One replica above the others: its host or its network. All together: Redis, look at its
                        SLOWLOG and at its disk.""",
                        (quantile(0.99, COMMANDS, "instance"), "{{instance}}"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Reconnects, a minute, by role",
                        """Normal: 0. A step of all replicas at once is Redis or a failover; one replica now and then
                        is its network.""",
                        ("60 * sum by (role) (rate(tidegate_redis_reconnects_total{}[r]))", "{{role}}"),
                    ),
                    lines(
                        "Errors, by role and kind",
                        """Normal: 0. unavailable: no connection or no answer in time. out_of_memory: Redis is full.
                        refused: rights or settings, the replica's log says which.""",
                        ("sum by (role, kind) (rate(tidegate_redis_errors_total{}[r]))", "{{role}} {{kind}}"),
                        unit="cps",
                    ),
                    lines(
                        "Pool of command connections",
                        """Over all replicas. waiting above 0 for long: redis.pool_size is too small for the load, or
                        Redis is slow.""",
                        ("sum by (state) (tidegate_redis_pool{})", "{{state}}"),
                    ),
                    lines(
                        "Memory",
                        """All that Redis holds; the log's part is bounded by log.events_max and log.age_max of each
                        topic. limit is maxmemory, 0 without one.""",
                        ("max(tidegate_redis_memory_bytes{})", "used"),
                        ("max(tidegate_redis_memory_max_bytes{})", "limit"),
                        unit="bytes",
                    ),
                    lines(
                        "Replicas of Redis",
                        """Connected to the master. Fewer than log.wait_replicas: publishing over HTTP is answered
                        503, counted here a minute.""",
                        ("min(tidegate_redis_replicas{})", "connected"),
                        ("60 * sum(rate(tidegate_unreplicated_publishes_total{}[r]))", "not confirmed, a minute"),
                    ),
                    lines(
                        "Saves of Redis that failed",
                        """The last snapshot, write to the append-only file, or writing anew of that file has failed. Normal: 0.
                        What is not saved is lost when Redis restarts; its log says why.""",
                        ("max by (save) (tidegate_redis_save_failed{})", "{{save}}"),
                        unit="none",
                        top=1,
                    ),
                    lines(
                        "Replicas that hear of one another",
                        "What each replica counts of the fleet. All agree, but for a moment after one came or went.",
                        ("max by (instance) (tidegate_replicas{})", "{{instance}}"),
                    ),
                ],
            ),
            (
                "Reading the log",
                [
                    lines(
                        "Reads that mend, by replica",
                        """At the first subscription to a topic, after a reconnect, at a hole. A steady rate without
                        new topics means that frames get lost.""",
                        by_instance("tidegate_repair_reads_total"),
                        unit="cps",
                    ),
                    lines(
                        "Pages read for streams, by replica",
                        """Streams that are behind their window: they came back after long, or read slowly. Equal
                        reads are shared.""",
                        by_instance("tidegate_log_reads_total"),
                        unit="cps",
                    ),
                    lines(
                        "Ticks, by replica",
                        """Silence that is probed, and streams that are helped on: a few a second on a quiet replica,
                        none on a busy one.""",
                        by_instance("tidegate_ticks_total"),
                        unit="cps",
                    ),
                    lines(
                        "Live path: overflows and foreign data, a minute",
                        """Normal: 0. overflows: this replica could not take frames as fast as they came, and began
                        anew. unreadable: something else writes to Tidegate's keys or channels. far ahead: ids that were
                        not believed; somebody else publishes to live channels, or Redis' clock was put forward.""",
                        ("60 * sum(rate(tidegate_live_overflows_total{}[r]))", "overflows"),
                        ("60 * sum(rate(tidegate_unreadable_frames_total{}[r]))", "unreadable"),
                        ("60 * sum(rate(tidegate_ids_ahead_total{}[r]))", "far ahead"),
                    ),
                ],
            ),
            (
                "Ingest: raw publishes and the inbox",
                [
                    states(
                        "Who appends",
                        """The ear that appends at once; the others wait for it and step in after 300 to 600 ms. It
                        changes at a deploy, and when an ear is slow or gone.""",
                        "tidegate_ingest_appender{}",
                        "{{instance}}",
                        {0: ("waits", "text"), 1: ("appends", "green")},
                    ),
                    lines(
                        "Heard and logged",
                        """Raw publishes that an ear hears, on average, and events that came of them. The lines lie
                        together; logged below heard: see Refused.""",
                        (
                            'sum(rate(tidegate_ingest_heard_total{}[r])) / (sum(tidegate_redis_up{role="ear"}) > 0)',
                            "heard by an ear",
                        ),
                        ('sum(rate(tidegate_events_published_total{source="raw"}[r]))', "logged"),
                        unit="cps",
                    ),
                    lines(
                        "Owed, by replica",
                        """Raw publishes that an ear has counted and does not know to be logged. Saw teeth near 0;
                        growing: appends fail. At ingest.owed_max it hears no more. On the right the bytes that
                        they take, up to ingest.owed_bytes_max.""",
                        ("sum by (instance) (tidegate_ingest_owed{})", "{{instance}}"),
                        ("sum(tidegate_ingest_owed_bytes{})", "bytes"),
                        right=("bytes", "bytes"),
                    ),
                    lines(
                        "Lag, by replica",
                        "Age of the oldest raw publish that is owed.",
                        ("max by (instance) (tidegate_ingest_lag_seconds{})", "{{instance}}"),
                        unit="s",
                        limits=steps("transparent", (2, "orange"), (10, "red")),
                    ),
                    lines(
                        "Take-overs, a minute",
                        "How often another ear became the one that appends. Normal: 0 between deploys.",
                        ("60 * sum by (instance) (rate(tidegate_ingest_takeovers_total{}[r]))", "{{instance}}"),
                    ),
                    lines(
                        "Appends, by outcome",
                        """ok is normal; wait, hole and stale pass by themselves; error is Redis away. diverged must
                        not be: two ears heard different publishes.""",
                        ("sum by (outcome) (rate(tidegate_ingest_appends_total{}[r]))", "{{outcome}}"),
                        unit="cps",
                    ),
                    lines(
                        "Refused, by reason",
                        """invalid: no event (topic, type, UTF-8, size). log: the topic has ended. unowned: given up
                        because the epoch was forgotten; full: an ear owes as much as it may; normal is 0.""",
                        ("sum by (reason) (rate(tidegate_ingest_refused_total{}[r]))", "{{reason}}"),
                        unit="cps",
                        stack=True,
                    ),
                    lines(
                        "Inbox",
                        """Entries that wait in the inbox, as ears last saw it, and on the right entries that became
                        events. Near 0; growing: they are not moved, the log of the ears says why.""",
                        ("max(tidegate_ingest_inbox_entries{})", "waiting"),
                        ('sum(rate(tidegate_events_published_total{source="inbox"}[r]))', "moved"),
                        right=("moved", "cps"),
                    ),
                ],
            ),
        ],
    )


def delivery():
    return dashboard(
        "tidegate-delivery",
        "Tidegate / Delivery quality",
        "What subscribers get: how soon, how completely, and what happened to those that were away.",
        [
            (
                "The promise: nothing missing, nothing twice, nothing late",
                [
                    latency_now(),
                    stat(
                        "On time",
                        "Share of live deliveries within a second. The alert fires below 99 %.",
                        """sum(rate(tidegate_delivery_latency_seconds_bucket{le="1"}[r]))
                        / (sum(rate(tidegate_delivery_latency_seconds_count{}[r])) > 0)""",
                        "on time",
                        "percentunit",
                        steps("red", (0.99, "orange"), (0.999, "green")),
                    ),
                    gaps_in_range(),
                    stat(
                        "Gaps by retention",
                        """Told in this time range to clients that were away for longer than the log reaches back.
                        Many: raise log.events_max or log.age_max.""",
                        'sum(increase(tidegate_gaps_total{reason=~"trimmed|expired"}[range]))',
                        "gaps",
                        "short",
                        NONE_IS_GOOD,
                        instant=True,
                        decimals=0,
                    ),
                    stat(
                        "Unlogged events skipped",
                        """Events of topics without a log that a slow stream never saw, in this time range. They are
                        not promised; many mean slow readers.""",
                        "sum(increase(tidegate_unlogged_events_skipped_total{}[range]))",
                        "events",
                        "short",
                        NONE_IS_GOOD,
                        instant=True,
                        decimals=0,
                    ),
                    stat(
                        "Streams cut while held",
                        """In this time range: a hole in one of their topics was not mended within repair.time. They
                        come back and miss nothing, later.""",
                        'sum(increase(tidegate_connections_closed_total{reason="held"}[range]))',
                        "streams",
                        "short",
                        NONE_IS_GOOD,
                        instant=True,
                        decimals=0,
                    ),
                ],
            ),
            (
                "How soon",
                [
                    lines(
                        "Delivery latency",
                        """From the event's id to the socket, one sample a write. Normal: p99 below 50 ms. A constant
                        offset is a clock that is off.""",
                        (quantile(0.5, LATENCY), "p50"),
                        (quantile(0.9, LATENCY), "p90"),
                        (quantile(0.99, LATENCY), "p99"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Delivery latency p99, by replica",
                        "One replica above the others: its CPU, its threads, its clock. All together: Redis.",
                        (quantile(0.99, LATENCY, "instance"), "{{instance}}"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    heat(
                        "Delivery latency, all deliveries",
                        """A second band above the first is one slow replica or one slow group of streams; a quantile
                        hides it.""",
                        LATENCY,
                        "s",
                    ),
                    lines(
                        "Heard and delivered, p99",
                        """heard: from the event's id until a replica has its frame, which is Redis and the network. delivered: until
                        the socket. What lies between is the replicas' own.""",
                        (quantile(0.99, "tidegate_live_latency_seconds_bucket{}"), "heard"),
                        (quantile(0.99, LATENCY), "delivered"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Clocks, by replica",
                        """The clock of each replica's machine less that of Redis. Within some milliseconds of 0, where NTP works. Latencies
                        are off by as much.""",
                        ("max by (instance) (tidegate_clock_offset_seconds{})", "{{instance}}"),
                        unit="s",
                        below_zero=True,
                    ),
                    lines(
                        "Sweep of the fan-out p99, by replica",
                        """One round of a thread over the streams that an event concerns: the part of the latency that
                        grows with the number of streams.""",
                        (quantile(0.99, "tidegate_fanout_sweep_seconds_bucket{}", "instance"), "{{instance}}"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Begin of a stream p99, by replica",
                        """From the request to the head. Normal: milliseconds. At stream.open_wait: Redis does not
                        confirm subscriptions in time.""",
                        (quantile(0.99, "tidegate_connection_start_seconds_bucket{}", "instance"), "{{instance}}"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Events for each that is published",
                        """Deliveries over publishes: about how many streams an event goes to. It falls when streams
                        go, or stop to read.""",
                        (
                            """sum(rate(tidegate_events_delivered_total{}[r])) /
                            (sum(rate(tidegate_events_published_total{}[r])) > 0)""",
                            "streams an event",
                        ),
                        unit="none",
                    ),
                ],
            ),
            (
                "How completely",
                [
                    lines(
                        "Gaps told, a minute, by reason",
                        """bad_cursor is the client's fault; trimmed and expired are retention; log_lost, rewound,
                        ahead and late are loss. README.md, Gaps, has each.""",
                        ("60 * sum by (reason) (rate(tidegate_gaps_total{}[r]))", "{{reason}}"),
                        stack=True,
                    ),
                    lines(
                        "Replays, by where events came from",
                        """Streams that resumed or asked for history. window: from memory, costs nothing. log: read
                        from Redis; much of it for long means that window.events_max is short.""",
                        ("sum by (outcome) (rate(tidegate_replays_total{}[r]))", "{{outcome}}"),
                        unit="cps",
                        stack=True,
                    ),
                    lines(
                        "Replays, how many events",
                        "Events that a stream was shown before it was live. It tells how long clients are away.",
                        (quantile(0.5, "tidegate_replay_events_bucket{}"), "p50"),
                        (quantile(0.99, "tidegate_replay_events_bucket{}"), "p99"),
                    ),
                    lines(
                        "Closed, by reason",
                        "Mostly client and age. drain: a deploy. held: holes are not mended in time.",
                        ("sum by (reason) (rate(tidegate_connections_closed_total{}[r]))", "{{reason}}"),
                        unit="cps",
                        stack=True,
                    ),
                    heat(
                        "Age of streams when they close",
                        """A band near stream.age_max is normal. A band at a round number below it is the idle time-out of something between.""",
                        "tidegate_connection_age_seconds_bucket{}",
                        "s",
                    ),
                    lines(
                        "Heartbeats for each open stream, a minute",
                        """60 s divided by stream.heartbeat (15 s: 4) on quiet streams, less on busy ones. 0 with
                        quiet streams: nobody is written to.""",
                        (
                            """60 * sum by (instance) (rate(tidegate_heartbeats_sent_total{}[r]))
                            / (sum by (instance) (tidegate_open_connections{}) > 0)""",
                            "{{instance}}",
                        ),
                        unit="none",
                    ),
                ],
            ),
        ],
    )


def seen_by_k6(metric):
    """All of a run. The first value of a counter is no increase, so it is looked at what it came to."""
    return f"sum(max_over_time({metric}{{}}[range]))"


def total_of_k6(title, what, metric, limits=None):
    return stat(title, what, seen_by_k6(metric), "events", "short", limits, instant=True, decimals=0)


def load():
    return dashboard(
        "tidegate-load",
        "Tidegate / Load test",
        """A run of k6 and what the gateway says of it, side by side. k6 writes here by remote write: loadtest/README.md. Its
        quantiles are of the whole run so far, those of the gateway of the last moments.""",
        [
            (
                "Is the promise kept?",
                [
                    total_of_k6(
                        "Missing events",
                        "Numbers of a publisher that a subscriber went past without seeing them. 0 is the promise.",
                        "k6_missing_events_total",
                        NONE_IS_GOOD,
                    ),
                    total_of_k6(
                        "Repeated events",
                        "Events whose number or id a subscriber had already gone past. 0 is the promise.",
                        "k6_repeated_events_total",
                        NONE_IS_GOOD,
                    ),
                    total_of_k6(
                        "Gaps told",
                        "tidegate.gap events that subscribers were shown. Normal: 0, unless Redis loses data.",
                        "k6_gap_events_total",
                        NONE_IS_GOOD,
                    ),
                    total_of_k6("Events read", "By all subscribers of the chosen runs.", "k6_events_read_total"),
                    total_of_k6(
                        "Subscribers done",
                        "Subscribers that came to the last event of their topic. They count at the end of a run.",
                        "k6_subscribers_done_total",
                    ),
                    stat(
                        "Checks that hold",
                        "Share of k6's own checks: publishes that were accepted, subscribers that saw everything.",
                        "min(k6_checks_rate{})",
                        "hold",
                        "percentunit",
                        steps("red", (1, "green")),
                    ),
                    lines(
                        "Missing, repeated, told",
                        """What subscribers saw, and the gaps that the gateway told. A step is the moment to look at in
                        the other panels.""",
                        ("sum(k6_missing_events_total{})", "missing (k6)"),
                        ("sum(k6_repeated_events_total{})", "repeated (k6)"),
                        ("sum(k6_gap_events_total{})", "gaps (k6)"),
                        ("60 * sum(rate(tidegate_gaps_total{}[r]))", "gaps a minute (gateway)"),
                    ),
                    lines(
                        "Resumes and cuts",
                        """Streams that came back with a cursor, and streams that ended though nobody wanted it; the
                        gateway counts what it replayed. As bodies (without k6/x/sse) each part of a stream is a resume.""",
                        ("sum(rate(k6_stream_resumes_total{}[r]))", "resumed (k6)"),
                        ("sum(rate(k6_stream_cuts_total{}[r]))", "cut (k6)"),
                        ("sum(rate(tidegate_replays_total{}[r]))", "replays (gateway)"),
                        unit="cps",
                    ),
                    lines(
                        "Refused by the gateway",
                        "Streams and publishes. Normal: 0. What k6 asks for is valid, so it is the fleet that is full.",
                        ("sum by (reason) (rate(tidegate_connections_refused_total{}[r]))", "stream: {{reason}}"),
                        ("sum by (reason) (rate(tidegate_publish_refused_total{}[r]))", "publish: {{reason}}"),
                        unit="cps",
                    ),
                ],
            ),
            (
                "Load",
                [
                    lines(
                        "Streams",
                        """Virtual users of k6: one for each subscriber, and one for each publisher. The gateway's are its open
                        streams; without k6/x/sse they come and go.""",
                        ("sum(k6_vus{})", "virtual users (k6)"),
                        (OPEN, "open streams (gateway)"),
                    ),
                    lines(
                        "Events read and delivered",
                        """Both lie on each other. Above k6: others listen, too, or k6 is behind: then it is k6 that is
                        measured.""",
                        ("sum(rate(k6_events_read_total{}[r]))", "read (k6)"),
                        ("sum(rate(tidegate_events_delivered_total{}[r]))", "delivered (gateway)"),
                        unit="cps",
                    ),
                    lines(
                        "Published",
                        "Requests of k6 and events of the gateway. They differ by the factor BATCH.",
                        ('sum(rate(k6_http_reqs_total{name="publish"}[r]))', "requests (k6)"),
                        ('sum(rate(tidegate_events_published_total{source="http"}[r]))', "events (gateway)"),
                        unit="cps",
                    ),
                ],
            ),
            (
                "How soon",
                [
                    lines(
                        "Delivery latency",
                        """k6: from before the publish is sent to the event in the script; only with k6/x/sse. The gateway: from
                        the id to the socket. What lies between is publishing, the proxy, and k6 itself.""",
                        ("max(k6_delivery_latency_ms_p50{}) / 1000", "p50 (k6)"),
                        ("max(k6_delivery_latency_ms_p99{}) / 1000", "p99 (k6)"),
                        (quantile(0.99, LATENCY), "p99 (gateway)"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Publishing",
                        """k6: from when it was due to the answer, through the proxy, so what waits behind a slow answer is slow,
                        too. The gateway: its part.""",
                        ("max(k6_publish_ms_p95{}) / 1000", "p95 (k6)"),
                        (quantile(0.95, "tidegate_publish_duration_seconds_bucket{}"), "p95 (gateway)"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                    lines(
                        "Begin of a stream",
                        "k6: from the request to the first byte. The gateway: from the request to the head.",
                        ("max(k6_stream_ttfb_ms_p95{}) / 1000", "p95 (k6)"),
                        (quantile(0.95, "tidegate_connection_start_seconds_bucket{}"), "p95 (gateway)"),
                        unit="s",
                        limits=DRAWN_LATE,
                    ),
                ],
            ),
            (
                "What it costs",
                [
                    lines(
                        "Open streams, by replica",
                        "How evenly the proxy spreads what k6 opens.",
                        ("sum by (instance) (tidegate_open_connections{})", "{{instance}}"),
                    ),
                    lines(
                        "CPU, by replica",
                        "Cores in use. At a whole core of a replica's thread it is the gateway that is measured.",
                        by_instance("process_cpu_seconds_total"),
                        unit="none",
                    ),
                    lines(
                        "Memory, by replica",
                        """Resident memory. In a soak it rises with the streams, then stays: a slope that does not end is a
                        leak.""",
                        ("sum by (instance) (process_resident_memory_bytes{})", "{{instance}}"),
                        unit="bytes",
                    ),
                ],
            ),
        ],
        of_k6=True,
    )


def made():
    boards = {
        "overview": overview,
        "replica": replica,
        "redis-and-ingest": redis_and_ingest,
        "delivery-quality": delivery,
        "load": load,
    }
    return {FOLDER / f"{name}.json": json.dumps(board(), indent=2) + "\n" for name, board in boards.items()}


def main(arguments):
    texts = made()
    if arguments == ["--check"]:
        stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
        unknown = set(FOLDER.glob("*.json")) - set(texts)
        for path in [*stale, *unknown]:
            print(f"{path.name} is not what grafana/dashboards.py writes: run it", file=sys.stderr)
        return 1 if stale or unknown else 0
    for path, text in texts.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
