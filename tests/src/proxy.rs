//! A TCP proxy that a test can break: it cuts, holds, delays and throttles what passes.
//!
//! What is held is not lost, as TCP would not lose it: it arrives when the network heals, or never, when one side gave the
//! connection up. Loss shows to programs as silence and as connections that break, and those two are what this makes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// Pieces that may wait for the network: about what the buffers of two sockets hold.
const WAITING: usize = 64;

/// Longest time until a thread notices that the proxy is gone.
const POLL: Duration = Duration::from_millis(100);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the coordinator.
    Up,
    /// From the coordinator.
    Down,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Up, Self::Down];
}

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They wait, and no connection is made. For a program the other side is silent.
    Hold,
    /// Each arrives so much later.
    Delay(Duration),
    /// So many pass in a second.
    Throttle(u64),
}

#[derive(Debug, Default)]
struct Way {
    flow: Flow,
    /// Bytes after which the connection that carries them is cut.
    left: Option<u64>,
    forwarded: u64,
}

#[derive(Debug, Default)]
struct State {
    up: Way,
    down: Way,
    open: Vec<Arc<Connection>>,
    cuts: u64,
    stopping: bool,
}

impl State {
    fn way(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Connection {
    near: TcpStream,
    far: TcpStream,
}

impl Connection {
    fn cut(&self) {
        // A side that is closed already is as cut as it can be.
        let _ = self.near.shutdown(Shutdown::Both);
        let _ = self.far.shutdown(Shutdown::Both);
    }
}

/// Stands between a worker or a client and the coordinator. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port and forwards to `target`.
    ///
    /// # Panics
    ///
    /// When it cannot listen.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the address of a socket that listens");
        let shared = Arc::new(Shared { target, state: Mutex::default(), changed: Condvar::new() });
        let accepting = shared.clone();
        thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what happens to bytes of one direction, on open and on later connections.
    pub fn set(&self, direction: Direction, flow: Flow) {
        self.shared.lock().way(direction).flow = flow;
        self.shared.changed.notify_all();
    }

    /// Holds everything: the network is gone.
    pub fn partition(&self) {
        Direction::ALL.into_iter().for_each(|direction| self.set(direction, Flow::Hold));
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        Direction::ALL.into_iter().for_each(|direction| self.set(direction, Flow::Pass));
    }

    /// Cuts every open connection; says how many.
    pub fn cut(&self) -> usize {
        let open = std::mem::take(&mut self.shared.lock().open);
        open.iter().for_each(|connection| connection.cut());
        self.shared.lock().cuts += open.len() as u64;
        open.len()
    }

    /// Cuts the connection that carries this many more bytes, right behind them.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.lock().way(direction).left = Some(bytes);
    }

    /// Connections that were cut.
    pub fn cuts(&self) -> u64 {
        self.shared.lock().cuts
    }

    /// Bytes that passed.
    pub fn forwarded(&self, direction: Direction) -> u64 {
        self.shared.lock().way(direction).forwarded
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        self.cut();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming() {
        if shared.lock().stopping {
            return;
        }
        let Ok(near) = near else { continue };
        let shared = shared.clone();
        thread::spawn(move || connect(near, &shared));
    }
}

/// A connection is made when its first packet passes. One that the target refuses is closed.
fn connect(near: TcpStream, shared: &Arc<Shared>) {
    let mut state = shared.lock();
    while state.up.flow == Flow::Hold && !state.stopping {
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    drop(state);
    let Ok(far) = TcpStream::connect(shared.target) else { return };
    let connection = Arc::new(Connection { near, far });
    {
        let mut state = shared.lock();
        if state.stopping {
            return connection.cut();
        }
        state.open.retain(|open| open.near.peer_addr().is_ok());
        state.open.push(connection.clone());
    }
    for direction in Direction::ALL {
        let (pieces, waiting) = sync_channel(WAITING);
        let (reads, writes) = (connection.clone(), connection.clone());
        thread::spawn(move || read(&reads, direction, &pieces));
        let shared = shared.clone();
        thread::spawn(move || write(&writes, direction, &waiting, &shared));
    }
}

/// What was read, and when.
struct Piece {
    at: Instant,
    bytes: Vec<u8>,
}

fn read(connection: &Connection, direction: Direction, pieces: &SyncSender<Piece>) {
    let mut from = match direction {
        Direction::Up => &connection.near,
        Direction::Down => &connection.far,
    };
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let piece = Piece { at: Instant::now(), bytes: buffer[..length].to_vec() };
                if pieces.send(piece).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn write(connection: &Connection, direction: Direction, waiting: &Receiver<Piece>, shared: &Shared) {
    let mut to = match direction {
        Direction::Up => &connection.far,
        Direction::Down => &connection.near,
    };
    // No small message waits for another one: the network is as fast as the rules say.
    let _ = to.set_nodelay(true);
    while let Ok(Piece { at, bytes }) = waiting.recv() {
        let Some(Passed { length, cut }) = pass(shared, direction, at, bytes.len()) else { break };
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
        if cut {
            break;
        }
    }
    // One side is closed, so that the other one must hear it.
    connection.cut();
    shared.lock().open.retain(|open| !std::ptr::eq(&raw const **open, connection));
}

/// How much of a piece passes, and whether the connection ends behind it.
struct Passed {
    length: usize,
    cut: bool,
}

/// Waits until a piece may pass; `None` when the proxy is gone.
fn pass(shared: &Shared, direction: Direction, at: Instant, length: usize) -> Option<Passed> {
    let mut state = shared.lock();
    // A throttled piece starts to pass now.
    let start = Instant::now();
    loop {
        if state.stopping {
            return None;
        }
        let due = match state.way(direction).flow {
            Flow::Pass => at,
            Flow::Hold => start + POLL.max(start.elapsed() + POLL),
            Flow::Delay(delay) => at + delay,
            Flow::Throttle(bytes) => start + Duration::from_secs_f64(length as f64 / bytes.max(1) as f64),
        };
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            break;
        }
        state = shared.changed.wait_timeout(state, wait.min(POLL)).unwrap_or_else(PoisonError::into_inner).0;
    }
    let way = state.way(direction);
    let passes = way.left.map_or(length, |left| length.min(usize::try_from(left).unwrap_or(length)));
    way.forwarded += passes as u64;
    let cut = match &mut way.left {
        Some(left) => {
            *left -= passes as u64;
            *left == 0
        }
        None => false,
    };
    if cut {
        way.left = None;
        state.cuts += 1;
    }
    Some(Passed { length: passes, cut })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends back what it gets, on every connection.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let (mut from, mut to) = (&stream, &stream);
                    // The end of the connection is the end of the echo.
                    let _ = std::io::copy(&mut from, &mut to);
                });
            }
        });
        address
    }

    fn client(proxy: &Proxy, patience: Duration) -> TcpStream {
        let stream = TcpStream::connect(proxy.address).unwrap();
        stream.set_read_timeout(Some(patience)).unwrap();
        stream
    }

    const LONG: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(300);

    fn ask(mut stream: &TcpStream, text: &str) -> std::io::Result<String> {
        stream.write_all(text.as_bytes())?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[test]
    fn bytes_pass_both_ways_and_are_counted() {
        let proxy = Proxy::start(echo());
        let stream = client(&proxy, LONG);
        assert_eq!(ask(&stream, "hello").unwrap(), "hello");
        assert_eq!(Direction::ALL.map(|direction| proxy.forwarded(direction)), [5, 5]);
    }

    #[test]
    fn what_is_held_either_way_arrives_when_the_network_heals() {
        let proxy = Proxy::start(echo());
        for direction in Direction::ALL {
            let mut stream = client(&proxy, LONG);
            assert_eq!(ask(&stream, "before").unwrap(), "before");
            proxy.set(direction, Flow::Hold);
            stream.set_read_timeout(Some(SHORT)).unwrap();
            let silent = ask(&stream, "held").unwrap_err();
            assert!(matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent}");
            proxy.heal();
            stream.set_read_timeout(Some(LONG)).unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"held");
        }
    }

    #[test]
    fn a_connection_that_is_cut_is_over_for_both_and_a_new_one_works() {
        let proxy = Proxy::start(echo());
        let stream = client(&proxy, LONG);
        assert_eq!(ask(&stream, "a").unwrap(), "a");
        assert_eq!((proxy.cut(), proxy.cuts()), (1, 1));
        assert!(ask(&stream, "b").is_err());
        assert_eq!(ask(&client(&proxy, LONG), "c").unwrap(), "c");
    }

    #[test]
    fn a_connection_is_cut_right_behind_the_last_byte_that_may_pass() {
        let proxy = Proxy::start(echo());
        let mut stream = client(&proxy, LONG);
        assert_eq!(ask(&stream, "first").unwrap(), "first");
        proxy.cut_after(Direction::Down, 3);
        stream.write_all(b"abcdef").unwrap();
        let mut rest = Vec::new();
        // Where it ends, in an orderly way or not, is all that matters.
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"abc");
        assert_eq!((proxy.cuts(), ask(&client(&proxy, LONG), "x").unwrap().as_str()), (1, "x"));
    }

    #[test]
    fn delay_and_throttle_take_the_time_that_they_should() {
        let proxy = Proxy::start(echo());
        let stream = client(&proxy, LONG);
        proxy.set(Direction::Up, Flow::Delay(SHORT));
        let start = Instant::now();
        assert_eq!(ask(&stream, "late").unwrap(), "late");
        assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
        proxy.set(Direction::Up, Flow::Throttle(1_000));
        let start = Instant::now();
        ask(&stream, &"x".repeat(500)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(490), "{:?}", start.elapsed());
    }
}
