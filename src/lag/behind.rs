//! Which message waits longest.

use async_nats::jetstream::stream::{RawMessageError, RawMessageErrorKind, Stream};

use crate::config::Pipeline;

/// When the stream stored the first message after the sequence `after` that `pipeline` reads, in nanoseconds since the Unix
/// epoch; `None` where it holds none.
pub(crate) async fn oldest(
    stream: &Stream,
    pipeline: &Pipeline,
    after: u64,
) -> Result<Option<i64>, RawMessageError> {
    let from = (after + 1).max(stream.cached_info().state.first_sequence);
    let mut oldest = None;
    for subject in pipeline.filter() {
        match stream.raw_message_builder().sequence(from).next_by_subject(subject).send().await {
            Ok(message) => {
                let time = i64::try_from(message.time.unix_timestamp_nanos()).unwrap_or(i64::MAX);
                oldest = Some(oldest.map_or(time, |oldest: i64| oldest.min(time)));
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(oldest)
}
