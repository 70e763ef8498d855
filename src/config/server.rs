//! The section `server`: the HTTP shim.

use std::net::{IpAddr, Ipv4Addr};

use bytesize::ByteSize;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Address and limits of the HTTP shim.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address to listen on; loopback by default.
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one and prints it.
    pub port: u16,
    /// Largest body that is accepted. A record must fit the broker's `message.max.bytes` too.
    pub max_body: ByteSize,
    /// Most calls that wait for an answer; the next one is refused and may come back.
    pub max_pending: usize,
    /// Partition of the replies topic that this instance reads; by default one is picked by the instance's identity.
    pub reply_partition: Option<i32>,
    /// Callers that are admitted; not supported yet.
    pub auth: Option<IgnoredAny>,
    /// Certificate and key; not supported yet.
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
