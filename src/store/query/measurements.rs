//! Measurements of radio receivers.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value as Json;

use super::call::Call;
use super::record::record;
use super::{Span, Store, StoreError};

record! {
    /// A measurement.
    Measurement {
        /// When the samples were taken.
        timestamp_utc: Timestamp,
        /// The task, or session, that asked for it.
        task_id: String,
        /// The receiver.
        websdr_id: String,
        /// Frequency that was listened to, in MHz.
        frequency_mhz: f64,
        /// Samples, in thousands a second.
        sample_rate_khz: Option<f64>,
        /// Samples, in all.
        samples_count: Option<i64>,
        /// Signal-to-noise ratio, in dB.
        snr_db: Option<f64>,
        /// Frequency found minus frequency listened to, in Hz.
        frequency_offset_hz: Option<f64>,
        /// Received power, in dBm.
        power_dbm: Option<f64>,
        /// Where the samples lie.
        s3_path: Option<String>,
        /// What else the message carried.
        attributes: Option<Json>,
    }
}

record! {
    /// The signal-to-noise ratio of a receiver.
    SnrStatistics {
        /// The receiver.
        websdr_id: String,
        /// Measurements that have one.
        measurements: i64,
        /// Mean, in dB.
        snr_db_mean: Option<f64>,
        /// Least, in dB.
        snr_db_min: Option<f64>,
        /// Greatest, in dB.
        snr_db_max: Option<f64>,
        /// Standard deviation, in dB.
        snr_db_stddev: Option<f64>,
    }
}

record! {
    /// The frequency offset of a receiver in a bucket of time.
    FrequencyDrift {
        /// The receiver.
        websdr_id: String,
        /// The bucket's start.
        bucket: Timestamp,
        /// Measurements that have an offset.
        measurements: i64,
        /// Mean offset, in Hz.
        offset_hz_mean: Option<f64>,
        /// Least offset, in Hz.
        offset_hz_min: Option<f64>,
        /// Greatest offset, in Hz.
        offset_hz_max: Option<f64>,
        /// How far the mean went from the bucket before, in Hz.
        drift_hz: Option<f64>,
    }
}

record! {
    /// A receiver's day.
    MeasurementDay {
        /// The day's start, in UTC.
        bucket: Timestamp,
        /// The receiver.
        websdr_id: String,
        /// Measurements.
        measurements: i64,
        /// Mean signal-to-noise ratio, in dB.
        snr_db_mean: Option<f64>,
        /// Least signal-to-noise ratio, in dB.
        snr_db_min: Option<f64>,
        /// Greatest signal-to-noise ratio, in dB.
        snr_db_max: Option<f64>,
        /// Mean frequency offset, in Hz.
        offset_hz_mean: Option<f64>,
        /// Least frequency offset, in Hz.
        offset_hz_min: Option<f64>,
        /// Greatest frequency offset, in Hz.
        offset_hz_max: Option<f64>,
    }
}

/// Which measurements.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeasurementFilter {
    /// Only of this task.
    pub task: Option<String>,
    /// Only of this receiver.
    pub receiver: Option<String>,
    /// Only of this span of time.
    pub span: Span,
}

impl Store {
    /// Measurements, newest first.
    pub async fn recent_measurements(
        &self,
        filter: &MeasurementFilter,
        max_rows: Option<i64>,
    ) -> Result<Vec<Measurement>, StoreError> {
        let call = Call::of("recent_measurements").with("task", filter.task.as_deref());
        let call = call.with("receiver", filter.receiver.as_deref()).within(filter.span);
        self.records(&call.with("max_rows", max_rows)).await
    }

    /// All measurements of a session (task), receiver by receiver, oldest first.
    pub async fn session_measurements(&self, task: &str, span: Span) -> Result<Vec<Measurement>, StoreError> {
        self.records(&Call::of("session_measurements").with("task", Some(task)).within(span)).await
    }

    /// The signal-to-noise ratio of each receiver.
    pub async fn snr_statistics(&self, filter: &MeasurementFilter) -> Result<Vec<SnrStatistics>, StoreError> {
        let call = Call::of("snr_statistics").with("receiver", filter.receiver.as_deref());
        self.records(&call.with("task", filter.task.as_deref()).within(filter.span)).await
    }

    /// The frequency offset over time, at all frequencies or at one in MHz.
    pub async fn frequency_drift(
        &self,
        receiver: Option<&str>,
        frequency: Option<f64>,
        width: Option<Duration>,
        span: Span,
    ) -> Result<Vec<FrequencyDrift>, StoreError> {
        let call = Call::of("frequency_drift").with("receiver", receiver).with("frequency", frequency);
        self.records(&call.with("width", width).within(span)).await
    }

    /// Receivers by day, from the roll-up.
    pub async fn measurement_days(
        &self,
        receiver: Option<&str>,
        span: Span,
    ) -> Result<Vec<MeasurementDay>, StoreError> {
        self.records(&Call::of("measurement_days").with("receiver", receiver).within(span)).await
    }
}
