//! `[pretrained.MODEL]`: files of weights that the networks of a model start from.
//!
//! Whether the file is there and fits is seen by the workers, who have it.

use super::file::ModelEntry;
use super::read::{Located, Log, Value};
use crate::spec::{ModelSpec, Pretrained};
use crate::{Digest, suggest};

/// Reads the tables and gives each to its model.
pub(super) fn read(log: &Log<'_>, models: &mut [ModelEntry], value: &Value<'_>) {
    let Some(section) = value.section() else {
        return;
    };
    for (name, value) in section.entries() {
        let pretrained = read_table(&value);
        let Some(entry) = models.iter_mut().find(|entry| entry.name == name) else {
            let names = models.iter().map(|entry| entry.name.as_str());
            let message = format!("`{name}` is not one of the grid's `models`");
            log.problem(&value.key_at, message, Some(suggest::hint(&name, names)));
            continue;
        };
        match entry.model {
            Some(ModelSpec::ResNet { .. }) | None => entry.pretrained = pretrained,
            Some(ModelSpec::WideResNet { .. } | ModelSpec::Mlp { .. }) => {
                let message = format!("`{name}` cannot start from a file of weights");
                let hint =
                    "files in torchvision's layout are read for ResNets only: drop the table".to_owned();
                log.problem(&value.key_at, message, Some(hint));
            }
        }
    }
}

fn read_table(value: &Value<'_>) -> Option<Pretrained> {
    let mut section = value.section()?;
    let file = section.require("file", "name the file, like `file = \"resnet50.safetensors\"`");
    let digest = section.require("blake3", "say what `b3sum` prints for the file, 64 hexadecimal digits");
    section.finish();
    let file = file.and_then(|value| file_name(&value));
    let digest = digest.and_then(|value| read_digest(&value));
    Some(Pretrained { file: file?.value, digest: digest?.value })
}

/// A name, not a path: the workers look in one folder only.
fn file_name(value: &Value<'_>) -> Option<Located<String>> {
    let name = value.text()?.value;
    let plain = !name.starts_with('.') && !name.contains(['/', '\\']) && !name.contains(char::is_control);
    if !plain || name.len() > 255 || !name.ends_with(".safetensors") {
        let hint = "name a file `….safetensors` in the folder `weights` of the workers' data folders, without a path";
        value.problem(
            format_args!("`{}` is not the name of such a file", name.escape_default()),
            Some(hint.to_owned()),
        );
        return None;
    }
    Some(value.located(name.to_owned()))
}

fn read_digest(value: &Value<'_>) -> Option<Located<Digest>> {
    match value.text()?.value.parse() {
        Ok(digest) => Some(value.located(digest)),
        Err(error) => {
            value.problem(error, Some("take what `b3sum FILE` prints".to_owned()));
            None
        }
    }
}
