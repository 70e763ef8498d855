//! `server`: the HTTP shim.

use std::net::{IpAddr, Ipv4Addr};

use bytesize::ByteSize;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The HTTP shim.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// The address to listen on; loopback unless told otherwise.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one and prints it.
    pub port: u16,
    /// The largest body that is accepted. A record must fit the broker's `message.max.bytes` too.
    pub max_body: ByteSize,
    /// Calls that wait for an answer, at most; the next one is told to come back.
    pub max_pending: usize,
    /// The partition of the replies topic that this instance reads; by default one is picked by the instance's identity.
    pub reply_partition: Option<i32>,
    /// Who may call.
    pub auth: Option<IgnoredAny>,
    /// Certificate and key.
    pub tls: Option<IgnoredAny>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 5000,
            max_body: ByteSize::kib(960),
            max_pending: 4096,
            reply_partition: None,
            auth: None,
            tls: None,
        }
    }
}
