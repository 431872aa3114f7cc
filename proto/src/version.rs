//! Which clients a coordinator speaks with.
//!
//! Every request of our own client carries the version of the interface that it was built for. Messages only ever gain
//! fields, so this number is raised only when an old client would misunderstand what it is told, or be misunderstood.
//! A request without it is one of somebody's own program, which is taken at its word.

use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

/// Version of the clients' interface.
pub const API: u32 = 1;

/// Metadata key of [`API`].
const API_KEY: &str = "credence-api";

/// Metadata key of the version of the client's build.
const BUILD_KEY: &str = "credence-version";

/// Writes on a request which interface and build it comes from.
///
/// # Errors
///
/// Never, in fact: the form of an interceptor.
pub fn sign(mut request: Request<()>) -> Result<Request<()>, Status> {
    let metadata = request.metadata_mut();
    metadata.insert(API_KEY, API.into());
    metadata.insert(BUILD_KEY, tonic::metadata::MetadataValue::from_static(env!("CARGO_PKG_VERSION")));
    Ok(request)
}

/// Refuses a request of a client that was built for another interface.
///
/// # Errors
///
/// `FAILED_PRECONDITION` with both versions and both builds.
pub fn check(request: Request<()>) -> Result<Request<()>, Status> {
    let text = |metadata: &MetadataMap, key| {
        metadata.get(key).map(|value| value.to_str().unwrap_or("unreadable").to_owned())
    };
    match text(request.metadata(), API_KEY) {
        Some(theirs) if theirs != API.to_string() => {
            let build = text(request.metadata(), BUILD_KEY).unwrap_or_else(|| "unknown".to_owned());
            Err(Status::failed_precondition(format!(
                "this client (version {build}) speaks interface {theirs}, the coordinator (version {}) interface {API}: \
                 run the same version of credence on both",
                env!("CARGO_PKG_VERSION")
            )))
        }
        Some(_) | None => Ok(request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_another_interface_is_refused_with_both_versions_named() {
        assert!(check(sign(Request::new(())).unwrap()).is_ok());
        assert!(check(Request::new(())).is_ok(), "somebody's own program");
        let mut old = sign(Request::new(())).unwrap();
        old.metadata_mut().insert(API_KEY, 0_u32.into());
        let refused = check(old).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        for words in ["interface 0", "interface 1", "version 0.1.0"] {
            assert!(refused.message().contains(words), "{}", refused.message());
        }
    }
}
