//! The coordinator as a server: opens the data folder, listens, serves until it is told to stop.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tracing::{info, warn};

use crate::blobs::{BlobError, Blobs};
use crate::config::Config;
use crate::driver::{self, Handle};
use crate::session::LiveLogs;
use crate::store::{Reader, Store, StoreError};
use crate::{grpc, session};

/// How long open connections may take to end when the coordinator stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a peer may be silent before it is asked whether it is there, and then before it is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Time between two searches for blobs that nothing refers to.
const SWEEP: Duration = Duration::from_secs(60 * 60);

/// Blobs of one request to the driver, so that a sweep does not hold up others.
const SWEEP_CHUNK: usize = 16;

/// Why the coordinator does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder cannot be used, or what it holds is damaged.
    #[error("cannot use the data folder")]
    Open(#[source] StoreError),
    /// The folder of blobs cannot be used.
    #[error("cannot use the folder of blobs")]
    Blobs(#[source] BlobError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: is another coordinator running there? Choose another `listen`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The log could not be written. What was answered before is durable.
    #[error("stopped, because the log could not be written")]
    Store(#[source] Arc<StoreError>),
    /// The server failed.
    #[error("the server failed")]
    Server(#[source] tonic::transport::Error),
    /// A task of the coordinator panicked.
    #[error("stopped, because of a bug in the coordinator")]
    Panicked,
    /// The descriptors of the wire are not understood by the reflection service.
    #[error("cannot describe the services")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// Serves until `shutdown` completes. `on_listening` is told the address, with the port that the system chose.
///
/// Stops in good order: what was accepted is answered and durable, sessions are ended, trainers go on.
///
/// # Errors
///
/// [`ServeError`] when it cannot start, or had to stop because its log could not be written.
pub async fn serve(
    config: Config,
    shutdown: impl Future<Output = ()>,
    on_listening: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let (store, blobs) = open(&config).await?;
    let listen = |source| ServeError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;

    let reader = store.reader();
    let (driver, mut running) =
        driver::start(store, blobs.clone(), config.limits()).map_err(ServeError::Open)?;
    let sweeper = tokio::spawn(sweep(driver.clone(), blobs.clone()));
    let router = router(&driver, blobs, reader).await?;

    let (stop, stopped) = oneshot::channel::<()>();
    let incoming = TcpListenerStream::new(listener).map(|stream| stream.inspect(no_delay));
    let server = router.serve_with_incoming_shutdown(incoming, async {
        // An error means that the sender is gone, which is a reason to stop, too.
        let _ = stopped.await;
    });
    let server = tokio::spawn(server);
    warn_if_exposed(address);
    info!(%address, data_dir = %config.data_dir.display(), "listening");
    on_listening(address);

    pin_mut!(shutdown);
    let ended = tokio::select! {
        () = &mut shutdown => {
            info!("stopping: workers' trainers go on");
            driver.stop().await;
            (&mut running).await
        }
        ended = &mut running => ended,
    };
    drop((stop, driver));
    sweeper.abort();
    let outcome = match ended {
        Ok(outcome) => outcome.map_err(ServeError::Store),
        Err(_) => Err(ServeError::Panicked),
    };
    let drained = drain(server).await;
    outcome.and(drained)
}

async fn open(config: &Config) -> Result<(Store, Blobs), ServeError> {
    let data_dir = config.data_dir.clone();
    let limit = config.max_blob_bytes;
    let open = move || {
        let store = Store::open(&data_dir).map_err(ServeError::Open)?;
        // After the lock on the folder: leftovers of another coordinator's uploads are not ours to remove.
        let blobs = Blobs::open_local(&data_dir.join("blobs"), limit).map_err(ServeError::Blobs)?;
        Ok((store, blobs))
    };
    tokio::task::spawn_blocking(open).await.unwrap_or(Err(ServeError::Panicked))
}

async fn router(driver: &Handle, blobs: Blobs, store: Reader) -> Result<Router, ServeError> {
    let logs = LiveLogs::default();
    let workers = session::Service::new(driver.clone(), blobs.clone(), logs.clone());
    let clients = grpc::Service::new(driver.clone(), blobs, store, logs);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<grpc::Server>().await;
    health.set_serving::<session::Server>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(InterceptedService::new(grpc::Server::new(clients), proto::version::check))
        .add_service(session::Server::new(workers))
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(ServeError::Reflection)?)
        // Most clients still ask for the older one.
        .add_service(reflection().build_v1alpha().map_err(ServeError::Reflection)?))
}

/// Small messages must not wait for each other. A socket that refuses the option still works.
fn no_delay(stream: &tokio::net::TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        warn!(%error, "cannot set TCP_NODELAY");
    }
}

/// Lets open requests end, but not for ever.
async fn drain(
    mut server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
) -> Result<(), ServeError> {
    match tokio::time::timeout(DRAIN, &mut server).await {
        Ok(Ok(served)) => served.map_err(ServeError::Server),
        Ok(Err(_)) => Err(ServeError::Panicked),
        Err(_) => {
            info!("connections that are still open are cut");
            server.abort();
            Ok(())
        }
    }
}

fn warn_if_exposed(address: SocketAddr) {
    if !address.ip().is_loopback() {
        warn!(
            %address,
            "anybody who reaches this address can run trials and read their results: there is no authentication"
        );
    }
}

/// Now and then looks for blobs that nothing refers to: a crash between an event and a deletion leaves some.
async fn sweep(driver: Handle, blobs: Blobs) {
    loop {
        let found: Result<Vec<_>, BlobError> = {
            let list = blobs.list();
            pin_mut!(list);
            let mut settled = Vec::new();
            loop {
                match list.next().await {
                    Some(Ok(blob)) if blob.is_settled() => settled.push(blob.digest),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Err(error),
                    None => break Ok(settled),
                }
            }
        };
        match found {
            Ok(settled) => {
                for chunk in settled.chunks(SWEEP_CHUNK) {
                    if driver.collect(chunk.to_vec()).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => warn!(error = &error as &dyn Error, "cannot list the blobs"),
        }
        blobs.expire_uploads().await;
        tokio::time::sleep(SWEEP).await;
    }
}
