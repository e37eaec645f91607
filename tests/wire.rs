//! Goal: the bytes on the wire.
mod support;
use support::*;
#[test]
fn smoke() {
    over_both_brokers(&[], |name, gateway| {
        let mut s = gateway.listen(&["news"]);
        let id = gateway.publish("news", "hello");
        let e = s.next_event();
        assert_eq!((e.id(), e.data.as_str()), (id.as_str(), "hello"), "{name}");
        println!("{:?} {:?}", s.headers(), s.text());
    });
}
