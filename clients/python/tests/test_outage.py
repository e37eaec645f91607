"""Goal: each event once and in order, though replicas and Redis go and come.

Method: these change the cluster, so they run alone, and one after another.
"""

import unittest

from support import KINDS, Follower, cluster, count, new_topic


class WhileTheClusterSuffers(unittest.TestCase):
    def followers(self):
        topic = new_topic()
        both = [Follower(kind, [topic], since="earliest") for kind in KINDS]
        for follower in both:
            self.addCleanup(follower.close)
        count(topic, 3)
        for follower in both:
            follower.shows(3)
        return topic, both

    def all_show(self, both, numbers):
        for follower in both:
            follower.shows(numbers)
            self.assertEqual((follower.data, follower.gaps), (list(range(numbers)), []))

    def test_a_replica_is_killed_and_nothing_is_missed(self):
        topic, both = self.followers()
        for number, follower in enumerate(both):
            replica = next(data["replica"] for name, data in reversed(follower.controls) if name == "open")
            cluster("kill", replica)
            count(topic, 3 + 2 * number, 5 + 2 * number)
            self.all_show(both, 5 + 2 * number)
            cluster("start", replica)

    def test_redis_is_away_and_streams_go_on_when_it_is_back(self):
        topic, both = self.followers()
        cluster("stop", "redis")
        cluster("start", "redis")
        count(topic, 3, 6)
        self.all_show(both, 6)
