"""Goal: each event once and in order, whatever happens between client and gateway; and never silently less.

Method: the gateway behind nginx, and a relay that cuts, holds back, freezes or refuses. Both readers go through all of it.
"""

import asyncio
import contextlib
import importlib.metadata
import io
import itertools
import re
import threading
import unittest

import httpx

from support import BASE_URL, EVENTS, FAILSAFE_SECONDS, KINDS, PUBLISHER, Follower, Relay, count, new_topic, until
from tidegate import AsyncTidegate, GapError, PublishError, Tidegate, TidegateError, publish, publish_async


class Case(unittest.TestCase):
    def relay(self):
        relay = Relay()
        self.addCleanup(relay.stop)
        return relay

    def each(self, topics, between=None, **options):
        """One reader of each kind; of those over a relay, each over its own."""
        for kind in KINDS:
            with self.subTest(kind=kind.__name__):
                relay = self.relay() if between else None
                if relay:
                    relay.mode = between
                fresh = topics()
                follower = Follower(kind, fresh, **({"url": relay.events} if relay else {}), **options)
                self.addCleanup(follower.close)
                yield (follower, relay, *fresh)


class Streams(Case):
    def test_events_of_every_type_come_with_their_topics(self):
        for follower, _, one, other in self.each(lambda: [new_topic(), new_topic()]):
            follower.live()
            first = publish(EVENTS, one, {"eur": 1}, event="price")
            second = publish(EVENTS, other, "two\nlines")
            follower.shows(2)
            price, text = follower.events
            self.assertEqual((price.topic, price.id, price.event, price.data), (one, first.id, "price", {"eur": 1}))
            self.assertEqual((price.time, price.cursor, price.encoding), (int(first.id.split("-")[0]), first.id, "json"))
            self.assertEqual((text.topic, text.id, text.event, text.data), (other, second.id, None, "two\nlines"))
            self.assertEqual(text.encoding, "text")
            until("the cursor is the last event", lambda: follower.tide.cursor == second.id)
            self.assertEqual(follower.lives, 1)
            self.assertEqual([state.name for state in follower.states], ["connecting", "catching-up", "live"])
            self.assertEqual(follower.controls[0][1]["topics"], [one, other])
            follower.close()
            self.assertEqual(follower.state, "closed")
            self.assertIsNone(follower.error)

    def test_only_the_types_that_were_asked_for_come(self):
        def topics():
            topic = new_topic()
            for number, event in ((1, "a"), (2, "b"), (3, None)):
                publish(EVENTS, topic, number, event=event)
            return [topic]

        for follower, *_ in self.each(topics, types=["b", "message"], since="earliest"):
            follower.shows(2)
            self.assertEqual(follower.data, [2, 3])

    def test_what_is_retained_comes_before_it_is_live(self):
        topic = new_topic()
        count(topic, 5)
        for follower, *_ in self.each(lambda: [topic], last=2):
            follower.live()
            self.assertEqual(follower.data, [3, 4])

    def test_a_loop_that_was_left_goes_on_from_the_cursor(self):
        topic = new_topic()
        count(topic, 4)
        with Tidegate(EVENTS, [topic], since="earliest") as tide:
            seen = [next(tide), next(tide)]
        with Tidegate(EVENTS, [topic], cursor=seen[-1].cursor) as tide:
            seen += [next(tide), next(tide)]
            with self.assertRaises(TypeError):
                Tidegate(EVENTS, topic)
        self.assertEqual([event.data for event in seen], [0, 1, 2, 3])

        async def read():
            async with AsyncTidegate(EVENTS, [topic], cursor=seen[1].cursor) as tide:
                return [(await tide.__anext__()).data for _ in range(2)]

        self.assertEqual(asyncio.run(read()), [2, 3])

    def test_more_than_fits_into_any_buffer_comes_to_a_slow_loop(self):
        topic = new_topic()
        text = "x" * 20_000
        for number in range(400):
            publish(EVENTS, topic, {"number": number, "text": text}, client=PUBLISHER)
        with Tidegate(EVENTS, [topic], since="earliest") as tide:
            first = next(tide)
            count(topic, 1)
            rest = [next(tide) for _ in range(400)]
        self.assertEqual([event.data["number"] for event in [first, *rest[:-1]]], list(range(400)))
        self.assertEqual(rest[-1].data, 0)

    def test_a_gap_is_told_and_by_a_loop_without_a_listener_raised(self):
        for follower, _, topic in self.each(lambda: [new_topic()], cursor="of-another-server"):
            until("the gap", lambda: follower.gaps)
            self.assertEqual((follower.gaps[0].topic, follower.gaps[0].reason), (topic, "bad_cursor"))
        with Tidegate(EVENTS, [topic], cursor="of-another-server") as tide:
            with self.assertRaises(GapError) as raised:
                next(tide)
            self.assertEqual(raised.exception.gap.reason, "bad_cursor")
            publish(EVENTS, topic, "after it")
            self.assertEqual(next(tide).data, "after it")

    def test_the_end_of_all_topics_is_the_end(self):
        for follower, _, one, other in self.each(lambda: [new_topic(), new_topic()]):
            follower.live()
            publish(EVENTS, one, 1, end=True)
            publish(EVENTS, other, 2)
            publish(EVENTS, other, 3, end=True)
            follower.ends()
            self.assertEqual((follower.data, follower.state, follower.error), ([1, 2, 3], "ended", None))
            with Tidegate(EVENTS, [one], since="earliest") as tide:
                self.assertEqual([event.data for event in tide], [1])

    def test_a_request_that_can_never_succeed_fails_at_once(self):
        for follower, *_ in self.each(lambda: ["a#b"], on_refused=lambda error: True):
            follower.ends()
            self.assertIsInstance(follower.error, TidegateError)
            self.assertEqual(follower.error.status, 400)
            self.assertIn("has no control character", str(follower.error))

    def test_a_refusal_ends_it_unless_new_headers_are_to_be_tried(self):
        for follower, relay, _ in self.each(lambda: [new_topic()], between=401):
            follower.ends()
            self.assertEqual((follower.error.status, len(relay.asked)), (401, 1))

        for kind in KINDS:
            relay, tokens = self.relay(), iter("123")
            relay.mode = 401

            def refused(error, relay=relay):
                relay.mode = "pass"
                return error.status == 401

            async def headers(tokens=tokens):
                return {"Authorization": f"Bearer {next(tokens)}"}

            follower = Follower(kind, [new_topic()], url=relay.events, headers=headers, on_refused=refused)
            self.addCleanup(follower.close)
            follower.live()
            sent = [re.search(r"(?i)authorization: (.*)\r", head)[1] for head in relay.asked]
            self.assertEqual(sent, ["Bearer 1", "Bearer 2"])

    def test_each_request_has_a_ticket_of_its_own(self):
        for kind in KINDS:
            relay, topic, given = self.relay(), new_topic(), itertools.count(1)

            async def ticket(given=given):
                number = next(given)
                if number == 2:
                    raise httpx.ConnectError("no ticket now")
                return f"ticket {number}"

            follower = Follower(kind, [topic], url=relay.events, ticket=ticket)
            self.addCleanup(follower.close)
            follower.live()
            count(topic, 0, 1)
            follower.shows(1)
            relay.cut()
            count(topic, 1, 2)
            follower.shows(2)
            sent = [re.search(r"[?&]ticket=([^& ]*)", head)[1] for head in relay.asked]
            self.assertEqual((follower.data, sent), ([0, 1], ["ticket+1", "ticket+3"]))

    def test_a_cut_is_not_an_end_and_neither_is_a_server_that_is_away(self):
        for follower, relay, topic in self.each(lambda: [new_topic()], between="pass"):
            follower.live()
            count(topic, 0, 1)
            follower.shows(1)
            relay.cut()
            count(topic, 1, 2)
            follower.shows(2)
            relay.mode = 503
            relay.cut()
            count(topic, 2, 3)
            until("refused twice", lambda: len(relay.asked) >= 4)
            relay.mode = "pass"
            count(topic, 3, 4)
            follower.shows(4)
            self.assertEqual((follower.data, follower.gaps), ([0, 1, 2, 3], []))
            waits = [state.wait for state in follower.states if state.name == "waiting"]
            self.assertGreaterEqual(len(waits), 3, "after each cut, and after a refusal")
            self.assertTrue(all(wait >= 0.05 for wait in waits), f"never less than was told: {waits}")

    def test_where_answers_are_held_back_short_ones_bring_each_event_and_streams_as_soon_as_it_can_be(self):
        def topics():
            topic = new_topic()
            count(topic, 3)
            return [topic]

        for follower, relay, topic in self.each(topics, between="hold", since="earliest", patience=0.3):
            follower.shows(3)
            self.assertTrue(any(state.short for state in follower.states), "short answers are asked for")
            follower.live()
            for number in range(3, 6):
                count(topic, number, number + 1)
                follower.shows(number + 1)
            self.assertEqual(follower.data, [0, 1, 2, 3, 4, 5])
            self.assertEqual(follower.lives, 1, "one short answer after another is one stream")
            relay.mode = "pass"
            until("a short answer is seen to pass", lambda: relay.heartbeats >= 4)
            count(topic, 6, 7)
            until("a stream again", lambda: relay.open and "max_age" not in relay.asked[-1])
            count(topic, 7, 8)
            follower.shows(8)
            self.assertEqual((follower.data, follower.gaps), (list(range(8)), []))

    def test_a_stream_that_is_dead_without_a_word_is_opened_anew(self):
        # What is known of heartbeats is said here; that it is learnt, the states below show.
        for follower, relay, topic in self.each(lambda: [new_topic()], between="pass", heartbeat=0.5):
            follower.live()
            count(topic, 0, 1)
            follower.shows(1)
            relay.mode = "freeze"
            asked = len(relay.asked)
            count(topic, 1, 2)
            until("it asks anew", lambda: len(relay.asked) > asked)
            relay.mode = "pass"
            relay.cut()
            follower.shows(2)
            self.assertEqual((follower.data, follower.gaps), ([0, 1], []))

    def test_a_loop_that_is_left_and_forgotten_leaves_no_connection(self):
        relay, topic = self.relay(), new_topic()
        count(topic, 1)
        for event in Tidegate(relay.events, [topic], since="earliest"):
            self.assertEqual((event.data, relay.open), (0, 1))
            break
        until("the connection is closed", lambda: relay.open == 0)

    def test_closing_ends_a_loop_that_waits_and_the_connection(self):
        for follower, relay, _ in self.each(lambda: [new_topic()], between="pass"):
            follower.live()
            follower.close()
            self.assertIsNone(follower.error)
            until("the connection is closed", lambda: relay.open == 0)


class Publishing(Case):
    def test_what_may_have_been_lost_is_sent_again_and_published_once(self):
        relay, topic = self.relay(), new_topic()
        relay.mode = "freeze"
        publisher = threading.Thread(target=publish, args=(relay.events, topic, "once"), daemon=True)
        publisher.start()
        with Tidegate(EVENTS, [topic], since="earliest") as tide:
            self.assertEqual(next(tide).data, "once")
            # It was taken, and its publisher does not know.
            relay.mode = "pass"
            relay.cut()
            publisher.join(FAILSAFE_SECONDS)
            self.assertEqual(len(relay.asked), 2)
            publish(EVENTS, topic, "next")
            self.assertEqual(next(tide).data, "next")

    def test_a_key_of_the_callers_is_the_key(self):
        topic = new_topic()
        first = publish(EVENTS, topic, "once", key="order-17")
        self.assertEqual(asyncio.run(publish_async(EVENTS, topic, "once", key="order-17")), first)

    def test_what_is_refused_is_not_sent_again(self):
        topic = new_topic()
        publish(EVENTS, topic, "last", end=True)
        with self.assertRaises(PublishError) as refused:
            publish(EVENTS, topic, "too late")
        self.assertEqual(refused.exception.status, 409)

    def test_it_gives_up_when_its_time_has_passed(self):
        relay = self.relay()
        relay.mode = 503
        with self.assertRaises(PublishError) as refused:
            publish(relay.events, new_topic(), "never", timeout=0.5)
        self.assertEqual(refused.exception.status, 503)
        self.assertGreater(len(relay.asked), 1)


class Readme(unittest.TestCase):
    def test_its_examples_print_what_is_published(self):
        text = importlib.metadata.metadata("tidegate").get_payload()
        examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        self.assertEqual(len(examples), 2)
        for number, example in enumerate(examples, start=1):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(example.replace("http://127.0.0.1:8080", BASE_URL), {"__name__": "example"})
            self.assertIn(f"orders new {{'item': {number}}}", printed.getvalue())
