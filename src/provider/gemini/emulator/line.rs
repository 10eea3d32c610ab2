//! Connections that can be cut at any moment, as a broken network would.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Accepts connections that can be cut.
pub struct Lines {
    listener: TcpListener,
    open: OpenLines,
}

impl Lines {
    /// Accepts what comes to a listener.
    pub fn new(listener: TcpListener) -> Lines {
        Lines { listener, open: OpenLines::default() }
    }

    /// All connections that will be open.
    pub fn open(&self) -> OpenLines {
        self.open.clone()
    }
}

impl Listener for Lines {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let cut = Cut::default();
                    self.open.add(&cut);
                    return (Line { stream, cut }, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "the emulator can not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// All connections that are open.
#[derive(Debug, Clone, Default)]
pub struct OpenLines(Arc<Mutex<Vec<Weak<CutState>>>>);

impl OpenLines {
    fn add(&self, cut: &Cut) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&cut.0));
    }

    /// Cuts them all.
    pub fn cut(&self) {
        for line in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(state) = line.upgrade() {
                Cut(state).now();
            }
        }
    }
}

/// One connection.
pub struct Line {
    stream: TcpStream,
    cut: Cut,
}

impl Line {
    fn broken(&self, context: &Context<'_>) -> Option<io::Error> {
        self.cut.0.waker.register(context.waker());
        let cut = self.cut.0.cut.load(Ordering::SeqCst);
        cut.then(|| io::Error::new(io::ErrorKind::ConnectionReset, "cut by a fault"))
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.broken(context) {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.broken(context) {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Cuts one connection.
#[derive(Debug, Clone, Default)]
pub struct Cut(Arc<CutState>);

#[derive(Debug, Default)]
struct CutState {
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    /// Whether the connection was cut.
    pub fn happened(&self) -> bool {
        self.0.cut.load(Ordering::SeqCst)
    }

    /// Nothing more is read from or written to the connection.
    pub fn now(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
        self.0.waker.wake();
    }
}

impl Connected<IncomingStream<'_, Lines>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Cut {
        stream.io().cut.clone()
    }
}
