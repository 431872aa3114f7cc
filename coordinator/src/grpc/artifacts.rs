//! Files that trials leave: those of their results, and the network of a train trial.

use common::result::Artifact;
use common::{Digest, suggest};
use coordinator_core::Trial;
use futures::StreamExt;
use proto::v1;

use super::error::RequestError;
use super::{Answer, Messages, Service, lookup};
use crate::session::to_chunks;

/// Name under which the final checkpoint of a train trial is listed.
const CHECKPOINT: &str = "checkpoint.safetensors";

impl Service {
    pub(super) async fn list_artifacts(
        &self,
        request: v1::ListArtifactsRequest,
    ) -> Answer<v1::ListArtifactsResponse> {
        self.look(move |view| {
            let (_, record) = lookup::trial(view, &request.trial)?;
            let artifacts = artifacts(record).into_iter().map(Into::into).collect();
            Ok(v1::ListArtifactsResponse { artifacts })
        })
        .await
    }

    pub(super) async fn download_artifact(
        &self,
        request: v1::DownloadArtifactRequest,
    ) -> Answer<Messages<v1::Chunk>> {
        let digest = self.look(move |view| find(view, &request)).await?;
        Ok(to_chunks(self.blobs.download(digest).await?).boxed())
    }
}

fn find(view: &crate::driver::View<'_>, request: &v1::DownloadArtifactRequest) -> Answer<Digest> {
    let (trial, record) = lookup::trial(view, &request.trial)?;
    let artifacts = artifacts(record);
    let found = artifacts.iter().find(|artifact| artifact.name == request.name);
    found.map(|artifact| artifact.digest).ok_or_else(|| {
        let hint = match record.outcome() {
            None => "it has not ended yet".to_owned(),
            Some(_) if artifacts.is_empty() => "it left none".to_owned(),
            Some(_) => suggest::hint(&request.name, artifacts.iter().map(|artifact| artifact.name.as_str())),
        };
        RequestError::UnknownArtifact { trial, name: request.name.clone(), hint }
    })
}

fn artifacts(record: &Trial) -> Vec<Artifact> {
    let Some(result) = record.result() else { return Vec::new() };
    let mut artifacts = result.artifacts.clone();
    let network = record.checkpoints.last().filter(|_| record.spec.trains());
    artifacts.extend(network.map(|checkpoint| Artifact {
        name: CHECKPOINT.to_owned(),
        digest: checkpoint.digest,
        bytes: checkpoint.bytes,
    }));
    artifacts
}
