//! The members of the cluster.

use coordinator_core::Session;
use proto::v1;

use super::{Answer, Service};

impl Service {
    pub(super) async fn list_workers(&self) -> Answer<v1::ListWorkersResponse> {
        self.look(|view| {
            let attempts = |worker| {
                let running = view.cluster.trials().filter_map(|(_, trial)| trial.attempt());
                let here = running.filter(move |attempt| attempt.placement.share_of(worker).is_some());
                here.map(|attempt| attempt.id.to_string()).collect()
            };
            let workers = view.cluster.workers().map(|member| {
                let lease = member.lease_ends.since(view.now).as_millis();
                v1::Worker {
                    id: member.id.to_string(),
                    name: member.worker.name.clone(),
                    host: member.worker.host.clone(),
                    slots: member.worker.slots,
                    slots_used: member.used,
                    connected: member.session == Session::Connected,
                    lease_left_ms: u64::try_from(lease).unwrap_or(u64::MAX),
                    attempts: attempts(member.id),
                    version: view.live.sessions.version(member.id).unwrap_or_default().to_owned(),
                }
            });
            Ok(v1::ListWorkersResponse { workers: workers.collect() })
        })
        .await
    }
}
