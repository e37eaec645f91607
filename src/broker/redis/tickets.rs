//! Tickets that wait to be used: what is asked of Redis.

use super::Redis;
use super::decode;
use crate::broker::{BrokerError, NewTicket, PutTicket};
use redis::Value;
use std::time::Duration;

impl Redis {
    pub(in crate::broker) async fn put_ticket(
        &self,
        ticket: &NewTicket<'_>,
    ) -> Result<PutTicket, BrokerError> {
        let mut cmd = self.write_function("put_ticket");
        cmd.arg(ticket.name)
            .arg(ticket.sealed)
            .arg(ticket.owner)
            .arg(ticket.life_ms)
            .arg(ticket.most);
        let answer = self.call(&cmd).await?;
        match decode::number(&answer).map_err(|_| self.unreadable())? {
            0 => Ok(PutTicket::Kept),
            wait_ms => Ok(PutTicket::Full(Duration::from_millis(wait_ms))),
        }
    }

    pub(in crate::broker) async fn ticket(
        &self,
        name: &str,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.key(&format!("ticket:{name}")));
        match self.command(&cmd).await? {
            Value::Nil => Ok(None),
            Value::BulkString(sealed) => Ok(Some(sealed)),
            _ => Err(self.unreadable()),
        }
    }

    pub(in crate::broker) async fn take_ticket(
        &self,
        name: &str,
        owner: &str,
    ) -> Result<bool, BrokerError> {
        let mut cmd = self.write_function("take_ticket");
        cmd.arg(name).arg(owner);
        let answer = self.call(&cmd).await?;
        let taken = decode::number(&answer).map_err(|_| self.unreadable())?;
        Ok(taken == 1)
    }
}
