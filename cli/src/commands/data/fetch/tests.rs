//! Against a server on this machine that serves a set in its official layout, and misbehaves.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use datasets::{Completeness, DataFolder, DatasetName, Split, load};

use super::*;

/// How the server answers a request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// As asked, with ranges.
    Well,
    /// So many bytes of what was asked for, then the connection is closed.
    Cut(usize),
    /// The whole file, whatever range was asked for.
    Whole,
    /// So many bytes of the whole file, whatever range was asked for.
    WholeCut(usize),
    /// A status without content.
    Status(&'static str),
    /// The range, under the name of another one.
    WrongRange,
}

/// Serves `content` to every address; once the answers are used up, it answers well.
struct Server {
    url: String,
    /// Address and first byte asked for, of each request.
    asked: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Server {
    fn start(content: Vec<u8>, answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/data/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, mut answers) = (asked.clone(), VecDeque::from(answers.to_vec()));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let answer = answers.pop_front().unwrap_or(Answer::Well);
                // A client that went away is no matter of the server's.
                let _ = serve(stream.unwrap(), &content, answer, &log);
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().iter().map(|(_, from)| *from).collect()
    }
}

fn serve(
    mut stream: TcpStream,
    content: &[u8],
    answer: Answer,
    log: &Mutex<Vec<(String, u64)>>,
) -> io::Result<()> {
    let (mut path, mut from) = (String::new(), 0);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("get ") {
            path = rest.split(' ').next().unwrap_or_default().to_owned();
        } else if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        } else if line.is_empty() {
            break;
        }
    }
    log.lock().unwrap().push((path, from));
    let start = usize::try_from(from).unwrap();
    let past = start >= content.len();
    let (status, body, sent) = match answer {
        Answer::Status(status) => (status, &content[..0], 0),
        Answer::Well | Answer::Cut(_) | Answer::WrongRange if start > 0 && past => {
            ("416 Range", &content[..0], 0)
        }
        Answer::Well | Answer::WrongRange => {
            (if start > 0 { "206 Partial" } else { "200 OK" }, &content[start..], usize::MAX)
        }
        Answer::Cut(count) => (if start > 0 { "206 Partial" } else { "200 OK" }, &content[start..], count),
        Answer::Whole => ("200 OK", content, usize::MAX),
        Answer::WholeCut(count) => ("200 OK", content, count),
    };
    let named = if matches!(answer, Answer::WrongRange) { start + 1 } else { start };
    let range = format!("Content-Range: bytes {named}-{}/{}\r\n", content.len().max(1) - 1, content.len());
    let range = if status.starts_with("206") { range } else { String::new() };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}Connection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body[..sent.min(body.len())])
}

/// `cifar-10-batches-bin` with four test images, as the official archive has it.
fn cifar() -> Vec<u8> {
    let records: Vec<u8> = (0..4_u8).flat_map(|label| [vec![label], vec![7; 3_072]].concat()).collect();
    let mut builder =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(records.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "cifar-10-batches-bin/test_batch.bin", &records[..]).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn archive_of(content: &[u8], file: &'static str, place: Place) -> Archive {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    fs::write(scratch.path(), content).unwrap();
    Archive { file, base: "http://unused.invalid/", md5: leaked(md5_of(scratch.path()).unwrap()), place }
}

fn cifar_archive(content: &[u8]) -> Archive {
    archive_of(content, "cifar-10-binary.tar.gz", Place::Unpacked("cifar-10-batches-bin"))
}

fn from(server: &Server, archive: &Archive, to: &Path) -> Result<Done, FetchError> {
    fetch(&Downloader::new(Duration::ZERO), archive, Some(&server.url), to)
}

/// Names below a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_set_is_fetched_verified_unpacked_and_can_be_loaded() {
    let content = cifar();
    let server = Server::start(content.clone(), &[]);
    let to = tempfile::tempdir().unwrap();
    let folder = to.path().join("new/folder");
    let archive = cifar_archive(&content);
    let target = folder.join("cifar-10-batches-bin");
    assert_eq!(from(&server, &archive, &folder).unwrap(), Done::Fetched(target.clone()));
    assert_eq!(names(&folder), ["cifar-10-batches-bin"]);
    let images =
        load(DatasetName::Cifar10, Split::Test, &DataFolder::new(&folder), Completeness::Subset).unwrap();
    assert_eq!(images.labels(), [0, 1, 2, 3]);
    assert_eq!(server.asked.lock().unwrap()[..], [("/data/cifar-10-binary.tar.gz".to_owned(), 0)]);
    // What is there is left alone, and the server not asked again.
    assert_eq!(from(&server, &archive, &folder).unwrap(), Done::There(target));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke_off() {
    let content: Vec<u8> = (0..300_000_u32).map(|at| (at / 7).to_le_bytes()[0]).collect();
    let answers = [Answer::Cut(100_000), Answer::Status("503 Busy"), Answer::Cut(50_000)];
    let server = Server::start(content.clone(), &answers);
    let to = tempfile::tempdir().unwrap();
    let archive = archive_of(&content, "test_32x32.mat", Place::Kept("svhn"));
    from(&server, &archive, to.path()).unwrap();
    assert_eq!(fs::read(to.path().join("svhn/test_32x32.mat")).unwrap(), content);
    assert_eq!(server.asked(), [0, 100_000, 100_000, 150_000]);
    assert_eq!(names(to.path()), ["svhn"]);
}

#[test]
fn a_download_goes_on_after_the_program_was_stopped() {
    let content = cifar();
    let half = content.len() / 2;
    let to = tempfile::tempdir().unwrap();
    fs::write(to.path().join("cifar-10-binary.tar.gz.part"), &content[..half]).unwrap();
    let server = Server::start(content.clone(), &[]);
    from(&server, &cifar_archive(&content), to.path()).unwrap();
    assert_eq!(server.asked(), [half as u64]);
    // A part that is whole already is not fetched again: the server has no byte left to send.
    let again = tempfile::tempdir().unwrap();
    fs::write(again.path().join("cifar-10-binary.tar.gz.part"), &content).unwrap();
    from(&server, &cifar_archive(&content), again.path()).unwrap();
    assert_eq!(names(again.path()), ["cifar-10-batches-bin"]);
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let content = cifar();
    let to = tempfile::tempdir().unwrap();
    fs::write(to.path().join("cifar-10-binary.tar.gz.part"), vec![0xAA; content.len() / 2]).unwrap();
    let server = Server::start(content.clone(), &[Answer::WholeCut(10), Answer::Whole]);
    from(&server, &cifar_archive(&content), to.path()).unwrap();
    assert_eq!(server.asked(), [content.len() as u64 / 2, 10]);
}

#[test]
fn a_wrong_digest_touches_nothing_and_says_where_the_download_is() {
    let content = cifar();
    let mut other = content.clone();
    *other.last_mut().unwrap() ^= 1;
    let server = Server::start(other.clone(), &[]);
    let to = tempfile::tempdir().unwrap();
    fs::write(to.path().join("cifar-10-binary.tar.gz.bad-1"), b"kept before").unwrap();
    fs::write(to.path().join("mine.txt"), b"mine").unwrap();
    let error = from(&server, &cifar_archive(&content), to.path()).unwrap_err();
    let kept = to.path().join("cifar-10-binary.tar.gz.bad-2");
    assert!(error.to_string().contains(&kept.display().to_string()), "{error}");
    assert_eq!(fs::read(kept).unwrap(), other);
    assert_eq!(fs::read(to.path().join("cifar-10-binary.tar.gz.bad-1")).unwrap(), b"kept before");
    assert_eq!(
        names(to.path()),
        ["cifar-10-binary.tar.gz.bad-1", "cifar-10-binary.tar.gz.bad-2", "mine.txt"]
    );
}

#[test]
fn a_file_of_the_users_is_never_replaced() {
    let content = b"published".to_vec();
    let archive = archive_of(&content, "test_32x32.mat", Place::Kept("svhn"));
    let server = Server::start(content, &[]);
    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join("svhn")).unwrap();
    fs::write(to.path().join("svhn/test_32x32.mat"), b"the user's own").unwrap();
    let error = from(&server, &archive, to.path()).unwrap_err();
    assert!(matches!(error, FetchError::Taken { .. }), "{error}");
    assert_eq!(fs::read(to.path().join("svhn/test_32x32.mat")).unwrap(), b"the user's own");
    assert!(server.asked().is_empty());
}

#[test]
fn refusals_and_dead_servers_are_told_apart() {
    let content = cifar();
    let archive = cifar_archive(&content);
    let to = tempfile::tempdir().unwrap();
    let server = Server::start(content.clone(), &[Answer::Status("404 Not Found")]);
    let error = from(&server, &archive, to.path()).unwrap_err();
    assert!(error.to_string().contains("404") && error.to_string().contains("--url"), "{error}");
    assert_eq!(server.asked().len(), 1, "a refusal is not tried again");

    let server = Server::start(content, &[&[Answer::Cut(3)][..], &[Answer::Cut(0); 9]].concat());
    let error = from(&server, &archive, to.path()).unwrap_err();
    assert!(matches!(error, FetchError::Download(DownloadError::Connection { .. })), "{error}");
    assert_eq!(names(to.path()), ["cifar-10-binary.tar.gz.part"], "what came is kept");
    assert_eq!(fs::metadata(to.path().join("cifar-10-binary.tar.gz.part")).unwrap().len(), 3);
}

#[test]
fn an_answer_for_another_range_is_not_appended() {
    let content = cifar();
    let to = tempfile::tempdir().unwrap();
    let part = to.path().join("cifar-10-binary.tar.gz.part");
    fs::write(&part, &content[..9]).unwrap();
    let server = Server::start(content.clone(), &[Answer::WrongRange]);
    let error = from(&server, &cifar_archive(&content), to.path()).unwrap_err();
    assert!(matches!(error, FetchError::Download(DownloadError::Refused { .. })), "{error}");
    assert_eq!(fs::read(part).unwrap(), &content[..9]);
}

#[test]
fn folders_that_cannot_be_written_and_full_disks_are_named() {
    let content = cifar();
    let server = Server::start(content.clone(), &[]);
    let to = tempfile::tempdir().unwrap();
    let file = to.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = from(&server, &cifar_archive(&content), &file.join("below")).unwrap_err();
    assert!(error.to_string().contains("cannot write") && error.to_string().contains("below"), "{error}");

    // Every write to this device fails as on a full disk.
    std::os::unix::fs::symlink("/dev/full", to.path().join("cifar-10-binary.tar.gz.part")).unwrap();
    let error = from(&server, &cifar_archive(&content), to.path()).unwrap_err();
    assert!(error.to_string().contains("free some space"), "{error}");
}

#[test]
fn an_archive_that_cannot_be_unpacked_leaves_no_folder_behind() {
    let content = b"no archive at all".to_vec();
    let server = Server::start(content.clone(), &[]);
    let to = tempfile::tempdir().unwrap();
    let error = from(&server, &cifar_archive(&content), to.path()).unwrap_err();
    assert!(matches!(error, FetchError::Unpack { .. }), "{error}");
    assert_eq!(names(to.path()), ["cifar-10-binary.tar.gz.part"]);
}
