use super::*;

fn pattern(text: &str) -> ChannelPattern {
    ChannelPattern::parse(text).unwrap()
}

fn mapping(channel: &str, topic: &str, type_field: Option<&str>) -> Mapping {
    let channel = pattern(channel);
    Mapping {
        topic: TopicTemplate::parse(topic, channel.stars()).unwrap(),
        channel,
        type_field: type_field.map(Into::into),
    }
}

#[test]
fn a_pattern_is_letters_and_stars() {
    for good in ["orders", "orders.*", "*:x", "a*b*c", "a{1}#;|"] {
        assert!(ChannelPattern::parse(good).is_ok(), "{good:?}");
    }
    let long = "x".repeat(256);
    let stars = "a*".repeat(9);
    for (bad, why) in [
        ("", BadChannel::Length),
        (&*long, BadChannel::Length),
        ("a?", BadChannel::Forbidden),
        ("a[bc]", BadChannel::Forbidden),
        ("a\\*", BadChannel::Forbidden),
        ("a,b", BadChannel::Forbidden),
        ("a b", BadChannel::Forbidden),
        ("a\u{85}", BadChannel::Forbidden),
        ("a**", BadChannel::Stars),
        (&stars, BadChannel::Stars),
    ] {
        assert_eq!(ChannelPattern::parse(bad), Err(why), "{bad:?}");
    }
}

#[test]
fn each_star_takes_as_little_as_may_be_and_the_last_the_rest() {
    let taken = |text: &str, channel: &str| {
        let pattern = pattern(text);
        let taken = pattern.taken(channel.as_bytes())?;
        let texts = taken.iter().map(|star| String::from_utf8_lossy(star));
        Some(texts.collect::<Vec<_>>().join("|"))
    };
    for (pattern, channel, stars) in [
        ("orders", "orders", Some("")),
        ("orders", "orders.", None),
        ("orders.*", "orders.", Some("")),
        ("orders.*", "orders.eu.1", Some("eu.1")),
        ("orders.*", "orders", None),
        ("*.*", "a.b.c", Some("a|b.c")),
        ("a*b*c", "abbcc", Some("|bc")),
        ("a*b*c", "acb", None),
        ("a*a", "a", None),
        ("*.x", "a.x.x", Some("a.x")),
        ("*ab*ab*", "xababab", Some("x||ab")),
    ] {
        assert_eq!(
            taken(pattern, channel).as_deref(),
            stars,
            "{pattern} {channel}"
        );
    }
    assert!(pattern("a*").fits(b"a\xff"), "bytes, as Redis has it");
}

#[test]
fn what_one_pattern_hears_another_may_hear_as_well() {
    for (wide, narrow, covers) in [
        ("orders.*", "orders.eu.*", true),
        ("orders.*", "orders.eu", true),
        ("orders.*", "orders.*", true),
        ("*.x", "a*.x", true),
        ("orders.eu.*", "orders.*", false),
        ("a*b", "a*", false),
        ("a*x*", "a*", false),
    ] {
        assert_eq!(
            pattern(wide).covers(&pattern(narrow)),
            covers,
            "{wide} {narrow}"
        );
    }
    for (text, begin, reaches) in [
        ("tide*", "tidegate:", true),
        ("*", "tidegate:", true),
        ("tidegate:*", "tidegate:", true),
        ("tidegate:x", "tidegate:", true),
        ("tidegates*", "tidegate:", false),
        ("tidegate", "tidegate:", false),
        ("orders*", "tidegate:", false),
    ] {
        assert_eq!(pattern(text).reaches(begin), reaches, "{text} {begin}");
    }
}

#[test]
fn a_topic_names_stars_that_are_there() {
    for (text, stars) in [
        ("orders", 0),
        ("orders:{1}", 1),
        ("{2}/{1}", 2),
        ("{1}{1}", 1),
    ] {
        assert!(TopicTemplate::parse(text, stars).is_ok(), "{text}");
    }
    for (text, why) in [
        ("a{", BadTemplate::Brace),
        ("a}", BadTemplate::Brace),
        ("a{}", BadTemplate::Brace),
        ("a{0}", BadTemplate::Brace),
        ("a{+1}", BadTemplate::Brace),
        ("a{x}", BadTemplate::Brace),
        ("{{1}}", BadTemplate::Brace),
        ("{2}", BadTemplate::NoStar(2)),
        ("", BadTemplate::Topic(BadTopic::Empty)),
        ("a,{1}", BadTemplate::Topic(BadTopic::Forbidden)),
        ("tidegate.{1}", BadTemplate::Topic(BadTopic::Reserved)),
    ] {
        assert_eq!(TopicTemplate::parse(text, 1), Err(why), "{text}");
    }
}

#[test]
fn a_publish_becomes_an_event_of_its_topic_and_type() {
    let entry = mapping("orders.*.*", "orders:{2}:{1}", Some("kind"));
    let read = |channel: &str, payload: &[u8]| {
        let read = entry.read(channel.as_bytes(), payload, 64);
        read.map(|item| (item.topic.to_string(), item.event_type.to_string()))
            .map_err(|unfit| unfit.why)
    };
    for (payload, kind) in [
        (r#"{"kind":"new","a":{"kind":"x"}}"#, "new"),
        (r#"{"a":[1,{"kind":"x"}],"k\u0069nd":"new"}"#, "new"),
        (r#"{"kind":"old","kind":"new"}"#, "new"),
        (r#"{"kind":""}"#, ""),
        (r#"{"kind":1}"#, ""),
        (r#"{"kind":null}"#, ""),
        (r#"{"kind":"a\nb"}"#, ""),
        (r#"{"kind":"tidegate.gap"}"#, ""),
        (r#"{"a":{"kind":"x"}}"#, ""),
        (r#"{"kind":"new"} x"#, ""),
        (r#"{"kind":"new""#, ""),
        (r#"["kind","new"]"#, ""),
        ("new", ""),
        ("", ""),
    ] {
        let expected = ("orders:1:eu".to_owned(), kind.to_owned());
        assert_eq!(
            read("orders.eu.1", payload.as_bytes()),
            Ok(expected),
            "{payload}"
        );
    }
    for (channel, payload, why) in [
        ("orders.eu.a#b", &b"x"[..], NoEvent::Topic),
        ("orders.eu.a,b", b"x", NoEvent::Topic),
        ("orders.eu.a\nb", b"x", NoEvent::Topic),
        ("orders.eu.1", b"\xff", NoEvent::Utf8),
        ("orders.eu.1", &[b'x'; 65], NoEvent::Size),
    ] {
        assert_eq!(read(channel, payload), Err(why), "{channel:?}");
    }
    assert_eq!(
        entry.read(b"orders.eu.\xff", b"x", 64).unwrap_err().why,
        NoEvent::Topic
    );
    let all = mapping("q*", "{1}", None);
    for channel in ["q", "qtidegate.x"] {
        let why = all.read(channel.as_bytes(), b"x", 64).unwrap_err().why;
        assert_eq!(why, NoEvent::Topic, "{channel}");
    }
}

/// Redis delivers one publish as often as something fits.
#[test]
fn of_all_deliveries_of_one_publish_one_is_taken() {
    let map = ChannelMap::new(vec![
        mapping("orders.eu.*", "eu", None),
        mapping("orders.all", "all", None),
        mapping("orders.*", "orders", None),
        mapping("orders.*.1", "ones", None),
    ]);
    let taken = |channel: &str| {
        let labels = map.channels().map(|pattern| {
            let label = (pattern.stars() > 0).then(|| pattern.as_str().as_bytes());
            map.entry_of(channel.as_bytes(), label)
        });
        let entries: Vec<_> = labels
            .flatten()
            .map(|entry| entry.channel.as_str())
            .collect();
        entries.join(" ")
    };
    for (channel, entry) in [
        ("orders.eu.1", "orders.eu.*"),
        ("orders.all", "orders.all"),
        ("orders.us.1", "orders.*"),
        ("orders", ""),
    ] {
        assert_eq!(taken(channel), entry, "{channel}");
    }
}

/// What two fleets publish of one another would go round for ever.
#[test]
fn what_any_gateway_publishes_is_not_heard() {
    let map = ChannelMap::new(vec![mapping("other:*", "t", None)]);
    let heard = |channel: &str| map.entry_of(channel.as_bytes(), Some(b"other:*")).is_some();
    for channel in ["other:{0}:live:a", "other:{17}:tick", "other:ingest"] {
        assert!(!heard(channel), "{channel}");
    }
    for channel in [
        "other:live:a",
        "other:{a}:live:b",
        "other:{0}:news",
        "other:a",
        "other:ingest:a",
        "other:a:ingest",
    ] {
        assert!(heard(channel), "{channel}");
    }
}

#[test]
fn what_is_heard_is_told_in_one_word() {
    let map = |channels: &[&str]| {
        let entries = channels.iter().map(|channel| mapping(channel, "t", None));
        ChannelMap::new(entries.collect()).heard()
    };
    let heard = map(&["b", "a.*"]);
    assert_eq!(heard, map(&["a.*", "b"]), "whatever the order");
    assert_ne!(heard.name(), map(&["a.*"]).name());
    let word = format!("{}={}", heard.name(), heard.patterns());
    assert_eq!(Heard::parse(&word), Some(heard));
    let shorter = word.strip_suffix('b').unwrap();
    for bad in ["", "x", "00000000=a", "-=", shorter] {
        assert_eq!(Heard::parse(bad), None, "{bad:?}");
    }
    assert_eq!(
        (&**Heard::default().name(), Heard::default().is_empty()),
        ("-", true)
    );
}
