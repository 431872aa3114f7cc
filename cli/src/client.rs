//! The connection to the coordinator.

use std::time::Duration;

use proto::v1::credence_client::CredenceClient;
use proto::version;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::args::ClientArguments;
use crate::error::Failure;

/// Writes on each request which version it comes from.
pub type Sign = fn(Request<()>) -> Result<Request<()>, Status>;

/// A client of one coordinator.
#[derive(Debug)]
pub struct Client {
    /// Calls of the service.
    pub api: CredenceClient<InterceptedService<Channel, Sign>>,
    url: String,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`] when nobody answers.
    pub async fn connect(arguments: &ClientArguments) -> Result<Self, Failure> {
        let url = arguments.url().to_owned();
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| Failure::Usage(format!("`{url}` is not a URL: {error}")))?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10));
        match endpoint.connect().await {
            // A table or a list of trials may be larger than the default limit of 4 MiB.
            Ok(channel) => {
                let api = CredenceClient::with_interceptor(channel, version::sign as Sign);
                Ok(Self { api: api.max_decoding_message_size(256 << 20), url })
            }
            Err(error) => {
                let message = innermost(&error).to_string();
                Err(Failure::Unreachable { url, message })
            }
        }
    }

    /// The answer, or the failure that its status stands for.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub fn answer<T>(&self, response: Result<Response<T>, Status>) -> Result<T, Failure> {
        response.map(Response::into_inner).map_err(|status| self.failure(&status))
    }

    /// The failure that a status stands for.
    pub fn failure(&self, status: &Status) -> Failure {
        Failure::from_status(&self.url, status)
    }
}

fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
