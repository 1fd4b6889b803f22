//! Whether a session is one of the server's own, or a pooler's that lends it the server's.
//!
//! Guarantees: where it is said to be direct, the server's session lives exactly as long as ours. Where it
//! cannot be told, it is not said.
//!
//! A server tells its process at login, for requests to cancel; a pooler makes up a number of its own, since
//! it exchanges servers underneath. The driver shows the number only in such a request.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::Session;

/// Bytes of a request for TLS, which comes first where the session has it.
const ASK_FOR_TLS: usize = 8;

/// Bytes of a request to cancel: length, code, process, secret.
const CANCEL: usize = 16;

impl Session {
    /// Whether no pooler stands between this session and the server's.
    pub(crate) async fn is_direct(&self) -> bool {
        let asked = self.client.simple_query("SELECT pg_catalog.pg_backend_pid()").await;
        let Ok(answers) = asked else { return false };
        let process = answers.iter().find_map(|answer| match answer {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse::<i32>().ok(),
            _ => None,
        });
        process.is_some() && process == self.process_at_login().await
    }

    /// The process that was told at login, read from a request to cancel that goes nowhere.
    async fn process_at_login(&self) -> Option<i32> {
        let (ours, mut theirs) = tokio::io::duplex(ASK_FOR_TLS + CANCEL);
        // Where TLS is asked for, it is granted.
        theirs.write_all(b"S").await.ok()?;
        self.client.cancel_token().cancel_query_raw(ours, AsItIs).await.ok()?;
        let mut request = Vec::new();
        theirs.read_to_end(&mut request).await.ok()?;
        let cancel = request.get(request.len().checked_sub(CANCEL)?..)?;
        Some(i32::from_be_bytes(cancel.get(8..12)?.try_into().ok()?))
    }
}

/// Takes the stream for one that is encrypted already.
struct AsItIs;

impl TlsConnect<DuplexStream> for AsItIs {
    type Stream = Plain;
    type Error = io::Error;
    type Future = Ready<Result<Plain, io::Error>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        ready(Ok(Plain(stream)))
    }
}

struct Plain(DuplexStream);

impl TlsStream for Plain {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
