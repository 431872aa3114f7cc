//! `credence data`: what is known of each data set, whether its files are whole, and how they get here.

mod check;
mod download;
mod fetch;
pub(super) mod source;
mod unpack;

use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use crate::args::DataCommand;
use crate::error::Failure;
use crate::{out, text};
use source::Source;

/// Files are read and written by threads that may wait.
pub async fn run(command: DataCommand) -> Result<ExitCode, Failure> {
    let work = move || match command {
        DataCommand::List(arguments) => list(arguments.json),
        DataCommand::Check(arguments) => check::run(&arguments),
        DataCommand::Fetch(arguments) => fetch::run(&arguments),
    };
    tokio::task::spawn_blocking(work).await.context("the command was aborted")?
}

/// What `list` says of one entry.
#[derive(Debug, Serialize)]
struct Entry {
    name: &'static str,
    shape: String,
    classes: usize,
    train: Option<usize>,
    test: usize,
    folder: Option<&'static str>,
    licence: &'static str,
    homepage: &'static str,
    archives: Vec<Published>,
}

/// A published file.
#[derive(Debug, Serialize)]
struct Published {
    url: String,
    md5: &'static str,
}

impl Entry {
    fn of(source: Source) -> Self {
        let archives = source
            .archives()
            .iter()
            .map(|archive| Published { url: format!("{}{}", archive.base, archive.file), md5: archive.md5 });
        Self {
            name: source.name(),
            shape: source.set().shape().to_string(),
            classes: source.set().classes(),
            train: source.train_images(),
            test: source.test_images(),
            folder: source.folder(),
            licence: source.licence(),
            homepage: source.homepage(),
            archives: archives.collect(),
        }
    }
}

fn list(json: bool) -> Result<ExitCode, Failure> {
    let entries: Vec<Entry> = Source::ALL.into_iter().map(Entry::of).collect();
    if json {
        return out::json(&entries);
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            [
                entry.name.to_owned(),
                entry.shape.clone(),
                entry.classes.to_string(),
                entry.train.map_or_else(|| "-".to_owned(), |images| images.to_string()),
                entry.test.to_string(),
                entry.folder.map_or_else(|| "(none needed)".to_owned(), |folder| format!("{folder}/")),
                entry.licence.to_owned(),
                entry.homepage.to_owned(),
            ]
        })
        .collect();
    let head = ["NAME", "SHAPE", "CLASSES", "TRAIN", "TEST", "FOLDER", "LICENCE", "HOMEPAGE"];
    out::line(&text::columns(head, &rows))?;
    out::line("")?;
    let archives: Vec<_> = entries
        .iter()
        .flat_map(|entry| {
            let row =
                |archive: &Published| [entry.name.to_owned(), archive.md5.to_owned(), archive.url.clone()];
            entry.archives.iter().map(row)
        })
        .collect();
    out::line(&text::columns(["NAME", "MD5", "PUBLISHED AT"], &archives))?;
    Ok(ExitCode::SUCCESS)
}
