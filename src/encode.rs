//! PostgreSQL's binary encodings and the frame of a binary `COPY`.

pub mod types;
