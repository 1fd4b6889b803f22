//! PostgreSQL's binary encodings and the frame of a binary `COPY`.

pub mod copy_frame;
pub mod types;
