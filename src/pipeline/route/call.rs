//! One call of a model for one request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::invocation::Call;
use crate::message::{Deadline, Reply, Request};
use crate::models::{CallFailure, Lease};

/// Calls the model; none when the deadline came first. A model that is hosted here has the whole of `timeout` and is
/// ended when that is not enough, so a request with less time gets a fault while the call goes on: a host must not be
/// taken for stuck because its callers have waited before.
pub(in crate::pipeline) async fn call_until_deadline(
    mut lease: Lease,
    request: Arc<Request>,
    payload: Bytes,
    largest_answer: usize,
    timeout: Duration,
    deadline: Deadline,
) -> Option<Result<Reply, CallFailure>> {
    let left = deadline.left();
    if left.is_zero() {
        return None;
    }
    let goes_on = lease.is_hosted() && left < timeout;
    let limit = if goes_on { timeout } else { timeout.min(left) };
    lease.limit_answer(largest_answer);
    let calling = async move {
        let (content_type, headers) = (request.content_type(), &request.headers);
        lease.invoke(&Call { content_type, payload, headers, timeout: limit }).await
    };
    if !goes_on {
        return Some(calling.await);
    }
    let mut calling = Box::pin(calling);
    let answer = deadline.until(&mut calling).await;
    if answer.is_none() {
        tokio::spawn(calling);
    }
    answer
}
