//! `credence artifacts`

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use proto::v1::{DownloadArtifactRequest, ListArtifactsRequest};

use crate::args::{ArtifactsArguments, ClientArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::view::Artifact;
use crate::{out, text};

pub async fn run(client: &ClientArguments, arguments: ArtifactsArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let ArtifactsArguments { trial, name, output, json } = arguments;
    let Some(name) = name else {
        return list(&mut client, trial, json).await;
    };
    match output {
        Some(path) if path == Path::new("-") => {
            download(&mut client, &trial, &name, out::write).await?;
        }
        output => {
            let path = output.unwrap_or_else(|| PathBuf::from(name.replace('/', "_")));
            save(&mut client, &trial, &name, &path).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &mut Client, trial: String, json: bool) -> Result<ExitCode, Failure> {
    let response = client.api.list_artifacts(ListArtifactsRequest { trial }).await;
    let artifacts: Vec<Artifact> = client.answer(response)?.artifacts.into_iter().map(Into::into).collect();
    if json {
        return out::json(&artifacts);
    }
    let row =
        |artifact: &Artifact| [artifact.name.clone(), text::bytes(artifact.bytes), artifact.digest.clone()];
    let rows: Vec<_> = artifacts.iter().map(row).collect();
    out::line(&text::columns(["NAME", "SIZE", "BLAKE3"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes beside the target and renames, so that a download that breaks leaves nothing half-written.
async fn save(client: &mut Client, trial: &str, name: &str, path: &Path) -> Result<(), Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let at = |source| Failure::File { path: part.clone(), source };
    let mut file = File::create(&part).map_err(at)?;
    let written = download(client, trial, name, |data| file.write_all(data).map_err(at)).await;
    let kept = written.and_then(|()| file.sync_all().map_err(at)).and_then(|()| {
        std::fs::rename(&part, path).map_err(|source| Failure::File { path: path.to_owned(), source })
    });
    if kept.is_err() {
        drop(std::fs::remove_file(&part));
    }
    kept
}

/// Hands the bytes of an artifact to `sink` as they come.
///
/// # Errors
///
/// When there is no such artifact, the connection breaks, or `sink` fails.
pub async fn download(
    client: &mut Client,
    trial: &str,
    name: &str,
    mut sink: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let request = DownloadArtifactRequest { trial: trial.to_owned(), name: name.to_owned() };
    let response = client.api.download_artifact(request).await;
    let mut chunks = client.answer(response)?;
    while let Some(chunk) = chunks.message().await.map_err(|status| client.failure(&status))? {
        sink(&chunk.data)?;
    }
    Ok(())
}
