//! Frames and detections.

use jiff::Timestamp;
use serde_json::Value as Json;

use super::call::Call;
use super::record::record;
use super::{Span, Store, StoreError};

record! {
    /// A video frame.
    Frame {
        /// When it was taken.
        time: Timestamp,
        /// The camera.
        camera_id: String,
        /// Its number, as the camera counts.
        frame_id: i64,
        /// Width in pixels.
        width: Option<i32>,
        /// Height in pixels.
        height: Option<i32>,
        /// How it is encoded.
        codec: Option<String>,
        /// Frames a second.
        fps: Option<f64>,
        /// Whether it stands by itself.
        key_frame: Option<bool>,
        /// Its size in bytes.
        size_bytes: Option<i64>,
        /// How long it was worked on, in milliseconds.
        processing_ms: Option<f64>,
        /// Brightness, as the camera measures it.
        brightness: Option<f64>,
        /// Motion, as the camera measures it.
        motion: Option<f64>,
        /// What else the message carried.
        attributes: Option<Json>,
    }
}

record! {
    /// An object that was detected in a frame.
    Detection {
        /// When the frame was taken.
        time: Timestamp,
        /// The camera.
        camera_id: String,
        /// The frame.
        frame_id: i64,
        /// The object, over several frames.
        track_id: Option<i64>,
        /// What it is.
        label: Option<String>,
        /// How sure that is.
        confidence: Option<f64>,
        /// Left edge of its box.
        bbox_left: Option<f64>,
        /// Top edge of its box.
        bbox_top: Option<f64>,
        /// Width of its box.
        bbox_width: Option<f64>,
        /// Height of its box.
        bbox_height: Option<f64>,
        /// What else the message carried.
        attributes: Option<Json>,
    }
}

record! {
    /// The frames of a camera in a bucket of time.
    FrameCount {
        /// The bucket's start.
        bucket: Timestamp,
        /// The camera.
        camera_id: String,
        /// Frames.
        frames: i64,
        /// Key frames.
        key_frames: i64,
        /// Bytes of all frames.
        bytes: Option<i64>,
        /// Mean time of work on a frame, in milliseconds.
        processing_ms_mean: Option<f64>,
        /// Greatest time of work on a frame, in milliseconds.
        processing_ms_max: Option<f64>,
        /// Mean brightness.
        brightness_mean: Option<f64>,
        /// Mean motion.
        motion_mean: Option<f64>,
    }
}

record! {
    /// The detections of a label by a camera in a bucket of time.
    DetectionCount {
        /// The bucket's start.
        bucket: Timestamp,
        /// The camera.
        camera_id: String,
        /// What was detected.
        label: Option<String>,
        /// Detections.
        detections: i64,
        /// Mean confidence.
        confidence_mean: Option<f64>,
        /// Greatest confidence.
        confidence_max: Option<f64>,
    }
}

/// A roll-up by the width of its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl Width {
    fn name(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }
}

/// Which detections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DetectionFilter {
    /// Only this camera's.
    pub camera: Option<String>,
    /// Only with this label.
    pub label: Option<String>,
    /// Only at least as sure.
    pub min_confidence: Option<f64>,
    /// Only of this span of time.
    pub span: Span,
    /// No more than these.
    pub max_rows: Option<i64>,
}

impl Store {
    /// The latest frame of each camera, or of one.
    pub async fn latest_frames(
        &self,
        camera: Option<&str>,
        since: Option<Timestamp>,
    ) -> Result<Vec<Frame>, StoreError> {
        self.records(&Call::of("latest_frames").with("camera", camera).with("since", since)).await
    }

    /// Frames of a camera, newest first.
    pub async fn frames(
        &self,
        camera: &str,
        span: Span,
        max_rows: Option<i64>,
    ) -> Result<Vec<Frame>, StoreError> {
        let call = Call::of("frames").with("camera", Some(camera)).within(span).with("max_rows", max_rows);
        self.records(&call).await
    }

    /// Detections, newest first.
    pub async fn detections(&self, filter: &DetectionFilter) -> Result<Vec<Detection>, StoreError> {
        let call = Call::of("detections")
            .with("camera", filter.camera.as_deref())
            .with("labelled", filter.label.as_deref())
            .with("min_confidence", filter.min_confidence)
            .within(filter.span)
            .with("max_rows", filter.max_rows);
        self.records(&call).await
    }

    /// Frames over time, from a roll-up.
    pub async fn frame_counts(
        &self,
        width: Width,
        camera: Option<&str>,
        span: Span,
    ) -> Result<Vec<FrameCount>, StoreError> {
        let call = Call::of("frame_counts").with("width", Some(width.name())).with("camera", camera);
        self.records(&call.within(span)).await
    }

    /// Detections over time, from a roll-up.
    pub async fn detection_counts(
        &self,
        width: Width,
        camera: Option<&str>,
        label: Option<&str>,
        span: Span,
    ) -> Result<Vec<DetectionCount>, StoreError> {
        let call = Call::of("detection_counts").with("width", Some(width.name())).with("camera", camera);
        self.records(&call.with("labelled", label).within(span)).await
    }
}
