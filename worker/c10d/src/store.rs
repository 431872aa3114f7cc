//! The key-value store by which the ranks of an attempt find each other.
//!
//! Traffic is neither encrypted nor authenticated (libtorch has no such mode), so the store listens on one
//! address only, chosen by the caller. Which rank hosts it is not decided here.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::IntoRawFd;
use std::time::Duration;

use crate::error::{ArgumentFault, C10dError, ErrorKind, Operation, Rank};
use crate::ffi::{self, Handle};
use crate::sys;

/// A connection to the store, and on the hosting rank the store itself.
///
/// The host keeps it until every rank has joined its process group; after that nothing is asked of it.
pub struct Store {
    pub(crate) handle: Handle<sys::Store>,
    host: String,
    port: u16,
}

impl Store {
    /// Serves a store on `address` and connects to it. Port 0 takes a free one, which [`Store::port`] tells.
    ///
    /// `timeout` bounds every later wait for a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Listen`] when the address cannot be had; [`ArgumentFault::UnspecifiedAddress`] for
    /// `0.0.0.0` and `::`.
    pub fn host(rank: Rank, address: SocketAddr, timeout: Duration) -> Result<Self, C10dError> {
        let serve = || {
            if address.ip().is_unspecified() {
                return Err(ArgumentFault::UnspecifiedAddress { address }.into());
            }
            let listen = |source| ErrorKind::Listen { address, source };
            let timeout_ms = ffi::milliseconds(timeout)?;
            let listener = TcpListener::bind(address).map_err(listen)?;
            let port = listener.local_addr().map_err(listen)?.port();
            let host = address.ip().to_string();
            let c_host = ffi::c_string(&host)?;
            let fd = listener.into_raw_fd();
            let handle = Handle::new(timeout, sys::c10d_store_free, |out, err, err_len| {
                // SAFETY: `fd` is an open listening socket that nobody else owns, the string outlives the
                // call, and the out and error pointers are valid for writes.
                unsafe { sys::c10d_store_host(fd, c_host.as_ptr(), port, timeout_ms, out, err, err_len) }
            })?;
            Ok(Self { handle, host, port })
        };
        serve().map_err(|kind| C10dError { rank, operation: Operation::HostStore, kind })
    }

    /// Connects to the store that another rank hosts; tries until `timeout`, which also bounds every
    /// later wait for a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] when nobody answers at `host` and `port`.
    pub fn connect(rank: Rank, host: &str, port: u16, timeout: Duration) -> Result<Self, C10dError> {
        let connect = || {
            let timeout_ms = ffi::milliseconds(timeout)?;
            let c_host = ffi::c_string(host)?;
            let handle = Handle::new(timeout, sys::c10d_store_free, |out, err, err_len| {
                // SAFETY: the string outlives the call; the out and error pointers are valid for writes.
                unsafe { sys::c10d_store_connect(c_host.as_ptr(), port, timeout_ms, out, err, err_len) }
            })?;
            Ok(Self { handle, host: host.to_owned(), port })
        };
        connect().map_err(|kind| C10dError { rank, operation: Operation::ConnectStore, kind })
    }

    /// Host under which this process reaches the store.
    #[must_use]
    pub fn host_name(&self) -> &str {
        &self.host
    }

    /// Port of the store.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of this machine from which packets to the store leave.
    pub(crate) fn local_address(&self) -> Result<String, ErrorKind> {
        // Connecting a datagram socket only looks up the route; nothing is sent.
        let route = |any: &str| {
            let socket = UdpSocket::bind(any)?;
            socket.connect((self.host.as_str(), self.port))?;
            socket.local_addr()
        };
        let address = route("0.0.0.0:0").or_else(|_| route("[::]:0"));
        let address = address.map_err(|error| ErrorKind::Other {
            message: format!("no route to the store at {}:{}: {error}", self.host, self.port),
        })?;
        Ok(address.ip().to_string())
    }
}
