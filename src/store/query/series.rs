//! Generic time series.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value as Json;

use super::call::Call;
use super::record::record;
use super::{Span, Store, StoreError};

record! {
    /// What a series is.
    SeriesMetadata {
        /// The series.
        id: String,
        /// Its name for people.
        name: Option<String>,
        /// What it is, for people.
        description: Option<String>,
        /// Name of the column of time where it comes from.
        time_column: Option<String>,
        /// Names of its columns of values.
        value_columns: Option<Vec<String>>,
        /// What else the document carried.
        attributes: Option<Json>,
        /// Time of the event that this is from.
        updated_at: Timestamp,
    }
}

record! {
    /// A value of a series.
    Point {
        /// The time that it is of.
        timestamp: Timestamp,
        /// The column.
        column_name: String,
        /// The value.
        value: Option<f64>,
    }
}

record! {
    /// All values of a series at a time.
    WidePoint {
        /// The time that they are of.
        timestamp: Timestamp,
        /// An object of columns and values. JSON has no NaN and no infinities: they are texts.
        values: Json,
    }
}

record! {
    /// A column of a series in a bucket of time.
    SeriesBucket {
        /// The bucket's start.
        bucket: Timestamp,
        /// The column.
        column_name: String,
        /// Values.
        points: i64,
        /// Their mean.
        mean: Option<f64>,
        /// The least of them.
        min: Option<f64>,
        /// The greatest of them.
        max: Option<f64>,
    }
}

record! {
    /// When a column of a series begins and ends.
    SeriesRange {
        /// The column.
        column_name: String,
        /// Its first time.
        first_at: Timestamp,
        /// Its last time.
        last_at: Timestamp,
    }
}

/// Which part of a series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesFilter {
    /// Only these columns.
    pub columns: Option<Vec<String>>,
    /// Only of this span of time.
    pub span: Span,
}

impl SeriesFilter {
    fn call(&self, name: &'static str, series: &str) -> Call {
        Call::of(name).with("series", Some(series)).with("columns", self.columns.clone()).within(self.span)
    }
}

record! {
    /// A column of a series.
    SeriesColumn {
        /// Its name.
        column_name: String,
    }
}

impl Store {
    /// The columns of a series: those of its metadata, else those of its points.
    pub async fn series_columns(
        &self,
        series: &str,
        filter: &SeriesFilter,
    ) -> Result<Vec<SeriesColumn>, StoreError> {
        self.records(&filter.call("series_columns", series)).await
    }

    /// A series, a row a value, newest first.
    pub async fn series_rows(
        &self,
        series: &str,
        filter: &SeriesFilter,
        max_rows: Option<i64>,
    ) -> Result<Vec<Point>, StoreError> {
        self.records(&filter.call("series_rows", series).with("max_rows", max_rows)).await
    }

    /// A series, a row a time, newest first.
    pub async fn series_wide(
        &self,
        series: &str,
        filter: &SeriesFilter,
        max_rows: Option<i64>,
    ) -> Result<Vec<WidePoint>, StoreError> {
        self.records(&filter.call("series_wide", series).with("max_rows", max_rows)).await
    }

    /// A series by buckets of time, oldest first.
    pub async fn series_downsampled(
        &self,
        series: &str,
        width: Duration,
        filter: &SeriesFilter,
    ) -> Result<Vec<SeriesBucket>, StoreError> {
        self.records(&filter.call("series_downsampled", series).with("width", Some(width))).await
    }

    /// The last value of each column.
    pub async fn series_last(&self, series: &str, filter: &SeriesFilter) -> Result<Vec<Point>, StoreError> {
        self.records(&filter.call("series_last", series)).await
    }

    /// When each column begins and ends.
    pub async fn series_range(
        &self,
        series: &str,
        filter: &SeriesFilter,
    ) -> Result<Vec<SeriesRange>, StoreError> {
        self.records(&filter.call("series_range", series)).await
    }
}
