//! The clients' service: requests in, answers out, one file for each family.
//!
//! It looks names up, reads the state, and hands inputs to the driver. It decides nothing.

mod artifacts;
mod error;
mod eta;
mod experiments;
mod logs;
mod lookup;
mod message;
mod metrics;
mod operations;
mod table;
mod trials;
mod watch;
mod workers;

use futures::stream::BoxStream;
use proto::status::{Kind, to_status};
use proto::v1;
use proto::v1::credence_server::{Credence, CredenceServer};
use tonic::{Request, Response, Status};

use crate::blobs::Blobs;
use crate::driver::{Handle, View};
use crate::session::LiveLogs;
use crate::store::{Reader, StoreError};

use error::RequestError;

/// The service as the server takes it.
pub(crate) type Server = CredenceServer<Service>;

/// The clients' service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    driver: Handle,
    blobs: Blobs,
    store: Reader,
    logs: LiveLogs,
}

type Answer<T> = Result<T, RequestError>;
type Messages<T> = BoxStream<'static, Result<T, Status>>;

impl Service {
    pub(crate) fn new(driver: Handle, blobs: Blobs, store: Reader, logs: LiveLogs) -> Self {
        Self { driver, blobs, store, logs }
    }

    /// Looks at the state. What it finds wrong is the request's error.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        self.driver.read(look).await?
    }

    /// Reads the store, which waits for the disk.
    async fn stored<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<T> {
        let reader = self.store.clone();
        let read = tokio::task::spawn_blocking(move || read(&reader)).await;
        Ok(read.unwrap_or(Err(StoreError::Abnormal))?)
    }
}

fn respond<T>(answer: Answer<T>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| to_status(&error as &dyn Kind))
}

#[tonic::async_trait]
impl Credence for Service {
    type WatchStream = Messages<v1::WatchUpdate>;
    type QueryMetricsStream = Messages<v1::MetricBatch>;
    type DownloadArtifactStream = Messages<v1::Chunk>;
    type ReadLogStream = Messages<v1::Chunk>;

    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        respond(self.submit(request.into_inner()).await)
    }

    async fn list_experiments(
        &self,
        _request: Request<v1::ListExperimentsRequest>,
    ) -> Result<Response<v1::ListExperimentsResponse>, Status> {
        respond(self.list_experiments().await)
    }

    async fn get_experiment(
        &self,
        request: Request<v1::GetExperimentRequest>,
    ) -> Result<Response<v1::GetExperimentResponse>, Status> {
        respond(self.get_experiment(request.into_inner()).await)
    }

    async fn list_trials(
        &self,
        request: Request<v1::ListTrialsRequest>,
    ) -> Result<Response<v1::ListTrialsResponse>, Status> {
        respond(self.list_trials(request.into_inner()).await)
    }

    async fn get_trial(
        &self,
        request: Request<v1::GetTrialRequest>,
    ) -> Result<Response<v1::GetTrialResponse>, Status> {
        respond(self.get_trial(request.into_inner()).await)
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        respond(self.cancel(request.into_inner()).await)
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Result<Response<v1::PauseResponse>, Status> {
        respond(self.pause(request.into_inner()).await)
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeRequest>,
    ) -> Result<Response<v1::ResumeResponse>, Status> {
        respond(self.resume(request.into_inner()).await)
    }

    async fn set_priority(
        &self,
        request: Request<v1::SetPriorityRequest>,
    ) -> Result<Response<v1::SetPriorityResponse>, Status> {
        respond(self.set_priority(request.into_inner()).await)
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        respond(self.explain(request.into_inner()).await)
    }

    async fn pin_checkpoint(
        &self,
        request: Request<v1::PinCheckpointRequest>,
    ) -> Result<Response<v1::PinCheckpointResponse>, Status> {
        respond(self.pin_checkpoint(request.into_inner()).await)
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        respond(self.drain(request.into_inner()).await)
    }

    async fn undrain(
        &self,
        request: Request<v1::UndrainRequest>,
    ) -> Result<Response<v1::UndrainResponse>, Status> {
        respond(self.undrain(request.into_inner()).await)
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        respond(self.watch(request.into_inner()).await)
    }

    async fn query_metrics(
        &self,
        request: Request<v1::QueryMetricsRequest>,
    ) -> Result<Response<Self::QueryMetricsStream>, Status> {
        respond(self.query_metrics(request.into_inner()).await)
    }

    async fn get_table(
        &self,
        request: Request<v1::GetTableRequest>,
    ) -> Result<Response<v1::GetTableResponse>, Status> {
        respond(self.get_table(request.into_inner()).await)
    }

    async fn list_artifacts(
        &self,
        request: Request<v1::ListArtifactsRequest>,
    ) -> Result<Response<v1::ListArtifactsResponse>, Status> {
        respond(self.list_artifacts(request.into_inner()).await)
    }

    async fn download_artifact(
        &self,
        request: Request<v1::DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        respond(self.download_artifact(request.into_inner()).await)
    }

    async fn read_log(
        &self,
        request: Request<v1::ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        respond(self.read_log(request.into_inner()).await)
    }

    async fn list_workers(
        &self,
        _request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        respond(self.list_workers().await)
    }
}
