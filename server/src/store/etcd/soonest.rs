//! Small questions that somebody waits for. While one member says nothing others are asked, too, and the first answer
//! counts: a member that is gone costs little, and a cluster that is slow is waited for.

use std::{future::poll_fn, task::Poll, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    connect::{Cluster, LEAST_WAIT, ROUND_WAIT},
    error::Failure,
};
use crate::store::Error;

/// After so long without an answer another member is asked, too. Who waits half a second hears from the third.
const NEXT_WAIT: Duration = Duration::from_millis(200);
/// How long one member may take.
const MEMBER_MAX: Duration = Duration::from_secs(1);

impl Cluster {
    /// Asks the members, within this time. For calls that change nothing.
    pub(super) async fn read_soonest<Q: Clone, A, F>(
        &self,
        total_max: Duration,
        message: &Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + total_max;
        let mut earlier = None;
        loop {
            let failure = match self.ask_all(deadline, message, &send).await {
                // The first round had the most time.
                Err(failure @ (Failure::Lost(_) | Failure::Elsewhere(_))) => failure.after(earlier),
                answer => return answer.map_err(Failure::unread),
            };
            sleep(ROUND_WAIT).await;
            if Instant::now() + LEAST_WAIT >= deadline {
                return Err(failure.unread());
            }
            earlier = Some(failure);
        }
    }

    /// Asks each member once, the preferred one first.
    async fn ask_all<Q: Clone, A, F>(
        &self,
        deadline: Instant,
        message: &Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut members = self.in_order();
        let mut asked = Vec::new();
        let mut failure = Failure::Elsewhere("no member of etcd is known".into());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if (asked.is_empty() || left > LEAST_WAIT)
                && let Some(member) = members.next()
            {
                asked.push((member, Box::pin(self.ask(member, MEMBER_MAX.min(left), message, &send))));
            }
            if asked.is_empty() {
                return Err(failure);
            }
            let first = poll_fn(|context| {
                let ready =
                    asked.iter_mut().enumerate().find_map(|(at, (_, asked))| match asked.as_mut().poll(context) {
                        Poll::Ready(answer) => Some((at, answer)),
                        Poll::Pending => None,
                    });
                ready.map_or(Poll::Pending, Poll::Ready)
            });
            let (at, answer) = tokio::select! {
                first = first => first,
                () = sleep(NEXT_WAIT), if members.len() > 0 => continue,
            };
            let (member, _) = asked.swap_remove(at);
            match answer {
                Err(lost @ (Failure::Lost(_) | Failure::Elsewhere(_))) => failure = lost,
                answer => {
                    self.prefer(member);
                    return answer;
                }
            }
        }
    }
}
