//! A publisher of raw bytes: what no client library would send.
//! Guarantees: bytes go out as they are given, even if no protocol allows them; after [`Wire::settled`], the
//! server has read all of them. It supports only a server without TLS and credentials.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

/// A connection to a server on loopback.
#[derive(Debug)]
pub struct Wire {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    /// What was published and not sent yet.
    buffer: Vec<u8>,
}

/// Bytes that are sent in one go.
const FLUSH_AT: usize = 256 * 1024;

impl Wire {
    /// Connects to the server at `port`.
    pub fn connect(port: u16) -> io::Result<Self> {
        let writer = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        writer.set_nodelay(true)?;
        let mut wire = Self { reader: BufReader::new(writer.try_clone()?), writer, buffer: Vec::new() };
        wire.line()?;
        let options = "{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\
            \"lang\":\"raw\",\"version\":\"1\"}";
        wire.buffer.extend_from_slice(format!("CONNECT {options}\r\n").as_bytes());
        wire.settled()?;
        Ok(wire)
    }

    /// Publishes `payload`, with a header block of any bytes where there is one.
    pub fn publish(
        &mut self,
        subject: &[u8],
        reply: Option<&[u8]>,
        headers: Option<&[u8]>,
        payload: &[u8],
    ) -> io::Result<()> {
        let verb: &[u8] = if headers.is_some() { b"HPUB " } else { b"PUB " };
        self.buffer.extend_from_slice(verb);
        self.buffer.extend_from_slice(subject);
        if let Some(reply) = reply {
            self.buffer.push(b' ');
            self.buffer.extend_from_slice(reply);
        }
        let block = headers.unwrap_or_default();
        let sizes = match headers {
            Some(_) => format!(" {} {}\r\n", block.len(), block.len() + payload.len()),
            None => format!(" {}\r\n", payload.len()),
        };
        for part in [sizes.as_bytes(), block, payload, b"\r\n"] {
            self.buffer.extend_from_slice(part);
        }
        if self.buffer.len() >= FLUSH_AT { self.send() } else { Ok(()) }
    }

    /// Waits until the server has read all that was published; what it said of it, one error a line.
    pub fn settled(&mut self) -> io::Result<Vec<String>> {
        self.buffer.extend_from_slice(b"PING\r\n");
        self.send()?;
        let mut errors = Vec::new();
        loop {
            let line = self.line()?;
            match line.as_str() {
                "PONG" => return Ok(errors),
                "PING" => self.writer.write_all(b"PONG\r\n")?,
                _ if line.starts_with("-ERR") => errors.push(line),
                _ => {}
            }
        }
    }

    /// Asks as a client does, and reads the answer's payload.
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> io::Result<Vec<u8>> {
        self.buffer.extend_from_slice(b"SUB _RAW.reply 1\r\n");
        self.publish(subject.as_bytes(), Some(b"_RAW.reply"), None, payload)?;
        self.buffer.extend_from_slice(b"UNSUB 1 1\r\n");
        self.send()?;
        loop {
            let line = self.line()?;
            let Some(size) = line.strip_prefix("MSG ").and_then(|line| line.rsplit(' ').next()) else {
                continue;
            };
            let size: usize = size.parse().map_err(|_| io::Error::other(line.clone()))?;
            let mut answer = vec![0; size + 2];
            self.reader.read_exact(&mut answer)?;
            answer.truncate(size);
            return Ok(answer);
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}
