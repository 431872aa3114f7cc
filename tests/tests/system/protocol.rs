//! Any gRPC client can find and use the service.

use std::collections::BTreeSet;
use std::future::Future;

use proto::v1::credence_client::CredenceClient;
use proto::v1::{GetTrialRequest, ListExperimentsRequest, SubmitRequest};
use system_tests::{Cluster, Lease};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

fn ask<T, F: Future<Output = T>>(cluster: &Cluster, questions: impl FnOnce(Channel) -> F) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = Endpoint::from_shared(cluster.url()).unwrap().connect().await.unwrap();
        questions(channel).await
    })
}

async fn reflect(channel: Channel, request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut client = ServerReflectionClient::new(channel);
    let response = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    response.into_inner().next().await.unwrap().unwrap().message_response.unwrap()
}

#[test]
fn reflection_lists_the_services_and_describes_them() {
    let cluster = Cluster::start(Lease::Long);
    let listed = ask(&cluster, |channel| reflect(channel, MessageRequest::ListServices(String::new())));
    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
    let names: BTreeSet<_> = listed.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["credence.v1.Credence", "credence.v1.WorkerSession", "grpc.health.v1.Health"] {
        assert!(names.contains(name), "no {name} among {names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol("credence.v1.Credence.Submit".to_owned());
    let described = ask(&cluster, |channel| reflect(channel, symbol));
    let MessageResponse::FileDescriptorResponse(files) = described else { panic!("{described:?}") };
    assert!(!files.file_descriptor_proto.is_empty());
    cluster.stop();
}

#[test]
fn health_is_serving_for_the_server_and_each_service() {
    let cluster = Cluster::start(Lease::Long);
    let status = |service: &'static str| {
        ask(&cluster, |channel| async move {
            let request = HealthCheckRequest { service: service.to_owned() };
            HealthClient::new(channel).check(request).await.map(|response| response.into_inner().status())
        })
    };
    for service in ["", "credence.v1.Credence", "credence.v1.WorkerSession"] {
        assert_eq!(status(service).unwrap(), ServingStatus::Serving, "`{service}`");
    }
    assert_eq!(status("credence.v1.Nothing").unwrap_err().code(), Code::NotFound);
    cluster.stop();
}

#[test]
fn errors_carry_the_status_code_of_their_kind() {
    let cluster = Cluster::start(Lease::Long);
    ask(&cluster, |channel| async move {
        let mut client = CredenceClient::new(channel);
        let unknown = client.get_trial(GetTrialRequest { trial: "t7".to_owned() }).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
        let grid = "name = \"x\"\nepoch = 3\n".to_owned();
        let refused = client.submit(SubmitRequest { grid, ..SubmitRequest::default() }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("`epoch`"), "{refused}");
        let listed = client.list_experiments(ListExperimentsRequest {}).await.unwrap();
        assert!(listed.into_inner().experiments.is_empty(), "a refused grid left something");
    });
    cluster.stop();
}
