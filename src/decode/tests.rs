//! Messages in, rows out, without a server.

mod arrays;
mod bad_input;
mod bounds;
mod compressed;
mod formats;
mod functions;
mod lenient;
mod nested;
mod plans;
mod raw;
mod shapes;
mod sources;
#[expect(clippy::unnecessary_wraps, reason = "fields are compared with what may be NULL")]
mod support;
mod types;
mod untaken;
