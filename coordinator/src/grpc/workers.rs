//! The members of the cluster.

use common::WorkerId;
use coordinator_core::{Session, WorkerView};
use proto::v1;

use super::{Answer, Service};
use crate::driver::View;

impl Service {
    pub(super) async fn list_workers(&self) -> Answer<v1::ListWorkersResponse> {
        self.look(|view| {
            let workers = view.cluster.workers().map(|member| {
                let traits = &member.worker.traits;
                let lease = member.lease_ends.since(view.now).as_millis();
                v1::Worker {
                    id: member.id.to_string(),
                    name: member.worker.name.clone(),
                    host: member.worker.host.clone(),
                    slots: member.worker.slots,
                    slots_used: member.used,
                    connected: member.session == Session::Connected,
                    lease_left_ms: u64::try_from(lease).unwrap_or(u64::MAX),
                    attempts: attempts_on(view, member.id),
                    labels: traits.labels.clone().into_iter().collect(),
                    device: traits.device.clone().unwrap_or_default(),
                    slot_memory_mib: traits.slot_memory_mib.unwrap_or_default(),
                    held: held(&member),
                    version: view.live.sessions.version(member.id).unwrap_or_default().to_owned(),
                }
            });
            Ok(v1::ListWorkersResponse { workers: workers.collect() })
        })
        .await
    }
}

/// Why a worker is given nothing new; empty if it is given work.
fn held(member: &WorkerView<'_>) -> String {
    let drained = member.drain.map(ToString::to_string);
    let quarantined = member.quarantine.map(ToString::to_string);
    drained.into_iter().chain(quarantined).collect::<Vec<_>>().join("; ")
}

/// Ids of the attempts that have a share on a worker.
pub(super) fn attempts_on(view: &View<'_>, worker: WorkerId) -> Vec<String> {
    view.cluster.attempts_on(worker).map(|attempt| attempt.to_string()).collect()
}
