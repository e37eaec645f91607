//! JSON from strangers: nothing is read in two ways.
//!
//! A member that stands twice is the first to some readers and the last to others, so whoever signs a token and whoever
//! takes it may see two ([RFC 8725](https://www.rfc-editor.org/rfc/rfc8725), [RFC 7519, section
//! 4](https://www.rfc-editor.org/rfc/rfc7519#section-4)). It is refused, at any depth. How deep values lie in one another
//! is bounded, and how much there is of them by the bytes of the token.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// How deep values may lie in one another. Identity providers need five.
const DEPTH_MAX: usize = 16;

/// Reads one object; none if it is anything else.
pub(super) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: DEPTH_MAX }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// A value, so many more levels deep.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        let depth = depth.ok_or_else(|| E::custom("values lie too deep in one another"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        let number = number.ok_or_else(|| E::custom("a number that is none"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(deeper)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(deeper)?;
            if map.insert(name, value).is_some() {
                return Err(Error::custom("a member stands twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_it_is() {
        let text = r#"{"a":[1,-2,2.5,null,true,"x\u00e9"],"b":{"c":{}},"d":18446744073709551615}"#;
        let plain: Value = serde_json::from_str(text).unwrap();
        assert_eq!(object(text.as_bytes()).map(Value::Object), Some(plain));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let deep = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(deep(15).as_bytes()).is_some());
        let bad = [
            deep(16),
            deep(100_000),
            r#"{"a":1,"a":1}"#.to_owned(),
            r#"{"a":1,"\u0061":2}"#.to_owned(),
            r#"{"a":{"b":1,"b":2}}"#.to_owned(),
            r#"{"a":[{"b":1,"b":2}]}"#.to_owned(),
            r#"{"a":1}{"b":2}"#.to_owned(),
            r#"{"a":1} x"#.to_owned(),
            r#"{"a":1e400}"#.to_owned(),
            r#"{"a":NaN}"#.to_owned(),
            r#"{"a":"\ud800"}"#.to_owned(),
            "{'a':1}".to_owned(),
            "[]".to_owned(),
            "1".to_owned(),
            "null".to_owned(),
            String::new(),
        ];
        for text in bad {
            assert!(object(text.as_bytes()).is_none(), "{text:.60}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_none());
    }
}
