//! Spans and points of time as SQL reads them, on every server version.
//!
//! Guarantees: the text is the span, to the microsecond, and no number in it is past 32 bits for some 200,000
//! years: PostgreSQL 14 takes no larger one in a field, and so refuses a day written in microseconds.

use std::time::Duration;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Seconds of an hour.
const HOUR: u64 = 3_600;

/// A span for settings and ages. Whole days stay days: people see it in `timescaledb_information.jobs`.
pub(crate) fn of(span: Duration) -> String {
    let (seconds, micros) = (span.as_secs(), span.subsec_micros());
    if micros == 0 && seconds > 0 && seconds.is_multiple_of(DAY) {
        return format!("{} days", seconds / DAY);
    }
    exact(span)
}

/// A span to add to times: never in days, which are of 23 to 25 hours where the session's time zone has
/// summer time.
pub(crate) fn exact(span: Duration) -> String {
    let (seconds, micros) = (span.as_secs(), span.subsec_micros());
    let (hours, seconds) = (seconds / HOUR, seconds % HOUR);
    if hours == 0 {
        return format!("{seconds}.{micros:06} seconds");
    }
    format!("{hours} hours {seconds}.{micros:06} seconds")
}

/// SQL for a time given in nanoseconds since the Unix epoch; the server keeps microseconds.
pub(crate) fn timestamp(ns: i64) -> String {
    format!("timestamptz 'epoch' + {}::float8 * interval '1 microsecond'", ns.div_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use tokio_postgres::types::Type;

    use super::*;
    use crate::testbed::{TestPostgres, connect};

    #[tokio::test]
    async fn every_span_is_read_back_by_the_server_as_it_was() {
        let server = TestPostgres::shared().unwrap();
        let client = connect(&server.url()).await.unwrap();
        // 14 refuses the second one in microseconds, and the fourth in seconds.
        for micros in
            [1, 86_400_000_000, 86_400_000_001, 250 * 365 * 86_400_000_001, 59_999_999, 3_600_000_000]
        {
            let span = Duration::from_micros(micros);
            for text in [of(span), exact(span)] {
                let sql = "SELECT (extract(epoch FROM $1::text::interval) * 1000000)::int8";
                let row = client.query_typed_one(sql, &[(&text, Type::TEXT)]).await;
                let row = row.unwrap_or_else(|error| panic!("{text}: {error:?}"));
                assert_eq!(row.get::<_, i64>(0), i64::try_from(micros).unwrap(), "{text}");
            }
        }
        assert_eq!(of(Duration::from_hours(48)), "2 days");
        assert!(!exact(Duration::from_hours(48)).contains("day"));
    }

    #[test]
    fn a_time_before_the_epoch_rounds_down() {
        assert_eq!(timestamp(-1), "timestamptz 'epoch' + -1::float8 * interval '1 microsecond'");
        assert_eq!(timestamp(1_999), "timestamptz 'epoch' + 1::float8 * interval '1 microsecond'");
    }
}
