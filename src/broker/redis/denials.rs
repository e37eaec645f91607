//! What was taken back: asked of the functions, and what they answer.

use super::{Redis, decode};
use crate::broker::{BrokerError, DenialKind, DenialPage};
use redis::Value;

impl Redis {
    pub(in crate::broker) async fn deny(
        &self,
        kind: DenialKind,
        text: &str,
        keep_ms: u64,
        most: usize,
    ) -> Result<u64, BrokerError> {
        let mut cmd = self.write_function("deny");
        cmd.arg(kind.as_str()).arg(text).arg(keep_ms).arg(most);
        let answer = self.call_durably(&cmd).await?;
        decode::number(&answer).map_err(|_| self.unreadable())
    }

    pub(in crate::broker) async fn denied(&self, since: u64) -> Result<DenialPage, BrokerError> {
        let mut cmd = self.read_function("denied");
        cmd.arg(since);
        let answer = self.call(&cmd).await?;
        page(&answer).map_err(|_| self.unreadable())
    }
}

fn page(answer: &Value) -> Result<DenialPage, decode::Unreadable> {
    let [last, now, count, up_to, entries @ ..] = decode::list(answer)? else {
        return Err(decode::Unreadable);
    };
    // A score or a text that cannot be read must not be passed over: it may deny somebody.
    let entry = |pair: &[Value]| match pair {
        [text, at] => Ok((decode::number(at)?, decode::text(text)?.to_owned())),
        _ => Err(decode::Unreadable),
    };
    let mut entries: Vec<(u64, String)> = entries.chunks(2).map(entry).collect::<Result<_, _>>()?;
    entries.sort_unstable();
    Ok(DenialPage {
        last: decode::number(last)?,
        now_ms: decode::number(now)?,
        count: decode::number(count)?,
        up_to: decode::number(up_to)?,
        entries,
    })
}
