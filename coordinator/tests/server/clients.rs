//! Experiments, trials, metrics, tables: what users ask.

use common::FailureCause;
use common::session::{FromWorker, Launch};
use common::spec::TrialSpec;
use proto::v1;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::support::{GRID, Server, Worker, assert_refused};

fn get_trial(trial: &str) -> v1::GetTrialRequest {
    v1::GetTrialRequest { trial: trial.to_owned() }
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let server = Server::start().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let response = client.server_reflection_info(tokio_stream::iter([request])).await;
    let ServerReflectionResponse { message_response, .. } =
        response.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = message_response else { panic!("a list") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["credence.v1.Credence", "credence.v1.WorkerSession", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn the_health_service_says_that_both_services_serve() {
    let server = Server::start().await;
    for service in ["", "credence.v1.Credence", "credence.v1.WorkerSession"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let response = HealthClient::new(server.channel.clone()).check(request).await.unwrap();
        assert_eq!(response.into_inner().status(), ServingStatus::Serving, "{service}");
    }
}

#[tokio::test]
async fn a_grid_that_is_submitted_again_is_not_computed_again() {
    let server = Server::start().await;
    let first = server.submit(GRID).await.unwrap();
    assert_eq!((first.experiment_id.as_str(), first.name.as_str(), first.cells), ("e1", "small", 4));
    assert_eq!((first.trials.len(), first.new_trials, first.reused_trials), (8, 8, 0));

    let second = server.submit(GRID).await.unwrap();
    assert_eq!((second.experiment_id.as_str(), second.new_trials, second.reused_trials), ("e2", 0, 8));
    let grown = GRID.replace("seeds = [0, 1]", "seeds = [0, 1, 2]");
    let grown = server.submit(&grown).await.unwrap();
    assert_eq!((grown.new_trials, grown.reused_trials), (4, 8));
}

#[tokio::test]
async fn a_dry_run_keeps_nothing() {
    let server = Server::start().await;
    let request = v1::SubmitRequest { grid: GRID.to_owned(), dry_run: true, client_version: String::new() };
    let response = server.client().submit(request.clone()).await.unwrap().into_inner();
    assert_eq!((response.experiment_id.as_str(), response.new_trials), ("", 8));
    let evaluate = response.trials.iter().find(|trial| !trial.needs.is_empty()).unwrap();
    assert!(response.trials.iter().any(|trial| trial.key == evaluate.needs[0]));
    let list = server.client().list_experiments(v1::ListExperimentsRequest {}).await.unwrap();
    assert!(list.into_inner().experiments.is_empty());

    server.submit(GRID).await.unwrap();
    let response = server.client().submit(request).await.unwrap().into_inner();
    assert_eq!((response.new_trials, response.reused_trials), (0, 8));
}

#[tokio::test]
async fn a_wrong_grid_is_answered_with_all_that_is_wrong() {
    let server = Server::start().await;
    let wrong = GRID.replace("epochs", "epoch").replace("mc-dropout", "mc-dropuot");
    let status = server.submit(&wrong).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, &["epochs", "mc-dropout", "3 errors above", "8 |"]);
    assert_eq!(status.message().matches("errors above").count(), 1, "said twice: {}", status.message());
}

#[tokio::test]
async fn a_grid_with_more_errors_than_a_header_holds_is_answered_with_the_first() {
    let server = Server::start().await;
    let unknown: String = (0..300).map(|key| format!("unknown-{key} = 1\n")).collect();
    let status = server.submit(&(unknown + GRID)).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, &["unknown-0", "grid:1:1", "errors above, and of "]);
}

#[tokio::test]
async fn names_that_nothing_has_are_answered_with_those_that_exist() {
    let server = Server::start().await;
    let unknown = v1::GetExperimentRequest { experiment: "smal".to_owned() };
    let status = server.client().get_experiment(unknown.clone()).await.unwrap_err();
    assert_refused(&status, Code::NotFound, &["`smal`", "none was submitted yet"]);
    server.submit(GRID).await.unwrap();
    let status = server.client().get_experiment(unknown).await.unwrap_err();
    assert_refused(&status, Code::NotFound, &["`smal`", "did you mean `small`?"]);

    for trial in ["t99", "x", "", "e1"] {
        let status = server.client().get_trial(get_trial(trial)).await.unwrap_err();
        assert_refused(&status, Code::NotFound, &[trial, "t7"]);
    }
}

#[tokio::test]
async fn an_experiment_is_found_by_id_and_by_name_and_the_newest_of_a_name_wins() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    server.submit(&GRID.replace("seeds = [0, 1]", "seeds = [5]")).await.unwrap();
    for (name, id, cells) in [("e1", "e1", 4), ("e2", "e2", 2), ("small", "e2", 2)] {
        let request = v1::GetExperimentRequest { experiment: name.to_owned() };
        let response = server.client().get_experiment(request).await.unwrap().into_inner();
        assert_eq!(response.experiment.unwrap().id, id);
        assert_eq!(response.cells.len(), cells);
        assert!(response.grid.contains("name = \"small\""));
        assert_eq!(response.cells[0].state(), v1::TrialState::Waiting);
    }
}

#[tokio::test]
async fn a_trial_is_found_by_id_by_key_and_by_the_beginning_of_its_key() {
    let server = Server::start().await;
    let key = server.submit(GRID).await.unwrap().trials[0].key.clone();
    for name in ["t1", &key, &key[..16], &key[..16].to_uppercase()] {
        let response = server.client().get_trial(get_trial(name)).await.unwrap().into_inner();
        let trial = response.trial.unwrap();
        assert_eq!((trial.id.as_str(), &trial.key), ("t1", &key));
        let spec: TrialSpec = serde_json::from_str(&response.spec_json).unwrap();
        assert_eq!(spec.key().to_string(), key);
        assert_eq!(
            (trial.state(), trial.reason.as_str()),
            (v1::TrialState::Queued, "no worker is connected")
        );
    }
    // Eight keys and sixteen digits: some digit begins two keys, unless all eight differ.
    let keys: Vec<_> = server.trials().await.into_iter().map(|trial| trial.key).collect();
    let twice = keys.iter().find(|key| keys.iter().filter(|other| other[..1] == key[..1]).count() > 1);
    if let Some(key) = twice {
        let status = server.client().get_trial(get_trial(&key[..1])).await.unwrap_err();
        assert_refused(&status, Code::InvalidArgument, &["give more digits"]);
    }
}

#[tokio::test]
async fn a_failed_trial_says_why_and_so_do_those_that_needed_it() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    let end = Err(FailureCause::NonFiniteLoss { step: 77 });
    worker.say(FromWorker::AttemptEnded { attempt, end }).await;
    worker.hear_launch().await;

    let trials = server.trials().await;
    let failed: Vec<_> = trials.iter().filter(|trial| trial.state() == v1::TrialState::Failed).collect();
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0].reason, "the loss was not finite at step 77");
    assert!(
        failed[1].reason.contains("which failed: the loss was not finite at step 77"),
        "{}",
        failed[1].reason
    );
    let response = server.client().get_trial(get_trial(&failed[0].id)).await.unwrap().into_inner();
    assert_eq!(response.attempts[0].failure, "the loss was not finite at step 77");
    assert_eq!(response.attempts[0].placement[0].worker_name, "node-1");
    assert!(response.attempts[0].ended_at_ms >= response.attempts[0].started_at_ms);
}

#[tokio::test]
async fn cancelling_ends_what_nobody_else_wants() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    server.submit(&GRID.replace("seeds = [0, 1]", "seeds = [1]")).await.unwrap();
    let cancel = |target| v1::CancelRequest { target: Some(target) };
    let experiment = v1::cancel_request::Target::Experiment("e1".to_owned());
    let response = server.client().cancel(cancel(experiment)).await.unwrap();
    assert_eq!(response.into_inner().cancelled, 4);

    let trial = v1::cancel_request::Target::Trial("t99".to_owned());
    let status = server.client().cancel(cancel(trial)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, &["t99"]);
    let status = server.client().cancel(v1::CancelRequest { target: None }).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, &["experiment or a trial"]);
}

#[tokio::test]
async fn a_trial_that_has_ended_cannot_be_cancelled() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    worker.run(&server, 1, |_| 0.0).await;
    worker.hear_launch().await;
    let done = server.trials().await.into_iter().find(|trial| trial.state() == v1::TrialState::Succeeded);
    let target = v1::cancel_request::Target::Trial(done.unwrap().id);
    let request = v1::CancelRequest { target: Some(target) };
    let status = server.client().cancel(request).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, &["has already ended"]);
}

#[tokio::test]
async fn metric_rows_are_shown_once_for_each_step_whatever_attempt_measured_them() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let first = worker.hear_launch().await.attempt;
    worker.rows(first, 1, &[(10, "loss", 2.0), (10, "lr", 0.1)]).await;
    worker.rows(first, 2, &[(20, "loss", 1.5), (30, "loss", f64::NAN)]).await;
    worker.say(FromWorker::AttemptEnded { attempt: first, end: Err(FailureCause::OutOfMemory) }).await;
    let second = worker.hear_launch().await.attempt;
    worker.rows(second, 1, &[(20, "loss", 1.5)]).await;

    let query = async |names: &[&str], after_step| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let request = v1::QueryMetricsRequest { trial: "t1".to_owned(), names, after_step };
        let mut batches = server.client().query_metrics(request).await.unwrap().into_inner();
        let mut rows = Vec::new();
        while let Some(batch) = batches.message().await.unwrap() {
            rows.extend(batch.rows.into_iter().map(|row| (row.step, row.name, row.attempt_id)));
        }
        rows
    };
    let row = |step, name: &str, attempt: common::AttemptId| (step, name.to_owned(), attempt.to_string());
    let all = [row(10, "loss", first), row(10, "lr", first), row(20, "loss", second), row(30, "loss", first)];
    assert_eq!(query(&[], 0).await, all);
    assert_eq!(query(&["loss"], 10).await, all[2..]);
}

#[tokio::test]
async fn the_table_of_a_run_has_the_mean_over_its_seeds() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let seed = |launch: &Launch| match &launch.spec {
        TrialSpec::Evaluate(evaluate) => evaluate.networks[0].seed,
        TrialSpec::Train(train) => train.seed,
    };
    let mut worker = Worker::connect(&server, 1, 1).await;
    worker.run(&server, 8, |launch| if seed(launch) == 0 { 0.25 } else { 0.75 }).await;
    // A ninth trial would be launched before this is answered.
    worker.rows(common::AttemptId(99), 1, &[]).await;

    let get = async |columns: &[&str], format: v1::TableFormat| {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        let request = v1::GetTableRequest {
            experiment: "small".to_owned(),
            columns,
            format: format.into(),
            ..v1::GetTableRequest::default()
        };
        server.client().get_table(request).await.map(tonic::Response::into_inner)
    };
    let table = get(&["accuracy"], v1::TableFormat::Markdown).await.unwrap();
    let methods: Vec<_> = table.rows.iter().map(|row| row.method.as_str()).collect();
    assert_eq!(methods, ["MSP", "MC Dropout"]);
    for row in &table.rows {
        assert_eq!(
            (row.data.as_str(), row.model.as_str(), row.done, row.seeds),
            ("digits", "wrn-10-1", 2, 2)
        );
        let value = &row.values[0];
        assert_eq!((value.metric.as_str(), value.mean, value.n), ("accuracy", Some(0.5), 2));
        // Sample standard deviation of 1/4 and 3/4.
        assert!((value.sd.unwrap() - 0.125_f64.sqrt()).abs() < 1e-15);
    }
    assert!(table.rendered.contains("| MSP"), "{}", table.rendered);
    for format in [v1::TableFormat::Text, v1::TableFormat::Csv, v1::TableFormat::Json, v1::TableFormat::Latex]
    {
        assert!(get(&[], format).await.unwrap().rendered.contains("MC Dropout"), "{format:?}");
    }
    let request = |compare: &str| v1::GetTableRequest {
        experiment: "small".to_owned(),
        format: v1::TableFormat::Text.into(),
        columns: vec!["accuracy".to_owned()],
        rows: vec!["MC Dropout".to_owned()],
        compare: compare.to_owned(),
        against_published: true,
        ..v1::GetTableRequest::default()
    };
    let table = server.client().get_table(request("MSP")).await.unwrap().into_inner();
    let found = table.rows[1].values[0].comparison.unwrap();
    assert_eq!((table.rows[1].method.as_str(), found.pairs, found.difference), ("MC Dropout", 2, 0.0));
    assert_eq!((found.p, found.effect), (None, None), "both rows have the same values");
    assert_eq!(table.rows[0].values[0].comparison, None);
    assert!(table.rendered.contains("nothing published belongs to these rows"), "{}", table.rendered);
    let status = server.client().get_table(request("MPS")).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, &["no method is labelled `MPS`", "did you mean `MSP`?"]);
    let status = get(&["acuracy"], v1::TableFormat::Text).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, &["did you mean `accuracy`?"]);
    let status = get(&[], v1::TableFormat::Unspecified).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, &["MARKDOWN"]);
}

#[tokio::test]
async fn a_table_of_a_run_that_goes_on_says_what_is_missing() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    worker.say(FromWorker::AttemptEnded { attempt, end: Err(FailureCause::NonFiniteLoss { step: 3 }) }).await;
    worker.hear_launch().await;
    let request = v1::GetTableRequest {
        experiment: "e1".to_owned(),
        columns: Vec::new(),
        format: v1::TableFormat::Text.into(),
        ..v1::GetTableRequest::default()
    };
    let table = server.client().get_table(request).await.unwrap().into_inner();
    assert!(table.rows.iter().all(|row| row.done == 0 && row.seeds == 2));
    assert!(table.rendered.contains("the loss was not finite at step 3"), "{}", table.rendered);
    assert!(table.rendered.contains("1 failed, 1 running"), "{}", table.rendered);
}

#[tokio::test]
async fn a_client_of_another_interface_is_refused_with_both_versions() {
    let server = Server::start().await;
    let mut request = tonic::Request::new(v1::ListWorkersRequest {});
    request.metadata_mut().insert("credence-api", 99_u32.into());
    let refused = server.client().list_workers(request).await.unwrap_err();
    let ours = format!("interface {}", proto::version::API);
    assert_refused(&refused, Code::FailedPrecondition, &["interface 99", &ours]);
    // One that says nothing is somebody's own program.
    server.client().list_workers(v1::ListWorkersRequest {}).await.unwrap();
}
