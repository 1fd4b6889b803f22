//! Projects, files and the log of what was done to them.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value as Json;
use tokio_postgres::types::Type;

use super::call::Call;
use super::record::record;
use super::{Span, Store, StoreError};

record! {
    /// A project.
    Project {
        /// The project.
        id: String,
        /// Its name for people.
        name: Option<String>,
        /// Where its data lies.
        path: Option<String>,
        /// Size of its data, in bytes.
        size_bytes: Option<i64>,
        /// How many tables it has.
        table_count: Option<i64>,
        /// How many buckets it has.
        bucket_count: Option<i64>,
        /// `active`, `deleted` or `locked`.
        status: String,
        /// Its settings.
        settings: Option<Json>,
        /// When it was created.
        created_at: Option<Timestamp>,
        /// Time of the event that this is from.
        updated_at: Timestamp,
    }
}

record! {
    /// A file of a project.
    File {
        /// The project.
        project_id: String,
        /// Where it lies in the project.
        path: String,
        /// Its name for people.
        name: Option<String>,
        /// Its size, in bytes.
        size_bytes: Option<i64>,
        /// Its media type.
        content_type: Option<String>,
        /// MD5 of its content.
        md5: Option<String>,
        /// SHA-256 of its content.
        sha256: Option<String>,
        /// Whether it waits to be taken over; until then it expires.
        staged: bool,
        /// When it expires, while it is staged.
        expires_at: Option<Timestamp>,
        /// Its tags: an array of texts, or an object of names and values.
        tags: Option<Json>,
        /// `active`, `deleted` or `expired`.
        status: String,
        /// When it was created.
        created_at: Option<Timestamp>,
        /// Time of the event that this is from.
        updated_at: Timestamp,
    }
}

record! {
    /// Something that was done.
    Operation {
        /// When it began.
        timestamp: Timestamp,
        /// The request that it was part of.
        request_id: Option<String>,
        /// The project.
        project_id: Option<String>,
        /// What was done.
        operation: String,
        /// To what.
        resource: Option<String>,
        /// What else there is to say.
        details: Option<Json>,
        /// How long it took, in milliseconds.
        duration_ms: Option<f64>,
        /// How it ended.
        status: Option<String>,
        /// Why it failed; `None`: it did not.
        error: Option<String>,
    }
}

record! {
    /// An operation in a bucket of time.
    OperationCount {
        /// The bucket's start.
        bucket: Timestamp,
        /// What was done.
        operation: String,
        /// How often.
        operations: i64,
        /// How often it failed.
        failures: i64,
        /// Mean duration, in milliseconds.
        duration_ms_mean: Option<f64>,
        /// Greatest duration, in milliseconds.
        duration_ms_max: Option<f64>,
    }
}

record! {
    /// Something in the registry that does not fit.
    Problem {
        /// What it is: `file without project`, `file of a deleted project`, or which count it is: `buckets`, `tables`, `files`.
        problem: String,
        /// The project.
        project_id: Option<String>,
        /// The file.
        path: Option<String>,
        /// The count that is stored.
        stored: Option<i64>,
        /// The count that the log adds up to.
        logged: Option<i64>,
    }
}

/// Which projects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectFilter {
    /// Only of this status.
    pub status: Option<String>,
    /// Only after this id: the next page.
    pub after: Option<String>,
    /// No more than these.
    pub max_rows: Option<i64>,
}

/// Which files of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileFilter {
    /// Only the one at this path.
    pub path: Option<String>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Also those that are deleted or expired.
    pub gone: bool,
    /// Only after this path: the next page.
    pub after: Option<String>,
    /// No more than these.
    pub max_rows: Option<i64>,
}

/// Which operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// Only of this project.
    pub project: Option<String>,
    /// Only of this request.
    pub request: Option<String>,
    /// Only what failed.
    pub failed: bool,
    /// Only of this span of time.
    pub span: Span,
    /// No more than these.
    pub max_rows: Option<i64>,
}

impl Store {
    /// Projects, in the order of their ids.
    pub async fn find_projects(&self, filter: &ProjectFilter) -> Result<Vec<Project>, StoreError> {
        let call = Call::of("find_projects").with("in_status", filter.status.as_deref());
        let call = call.with("after", filter.after.as_deref()).with("max_rows", filter.max_rows);
        self.records(&call).await
    }

    /// Files of a project, in the order of their paths.
    pub async fn find_files(&self, project: &str, filter: &FileFilter) -> Result<Vec<File>, StoreError> {
        let call = Call::of("find_files")
            .with("project", Some(project))
            .with("path_is", filter.path.as_deref())
            .with("name_is", filter.name.as_deref())
            .with("tag", filter.tag.as_deref())
            .with("gone", Some(filter.gone))
            .with("after", filter.after.as_deref())
            .with("max_rows", filter.max_rows);
        self.records(&call).await
    }

    /// Files of any project with this SHA-256.
    pub async fn files_by_digest(&self, sha256: &str) -> Result<Vec<File>, StoreError> {
        self.records(&Call::of("files_by_digest").with("digest", Some(sha256))).await
    }

    /// Staged files that have expired by a time, or by now, and are not marked yet.
    pub async fn expired_files(
        &self,
        at: Option<Timestamp>,
        max_rows: Option<i64>,
    ) -> Result<Vec<File>, StoreError> {
        self.records(&Call::of("expired_files").with("at", at).with("max_rows", max_rows)).await
    }

    /// Marks staged files that have expired by a time; returns how many.
    pub async fn expire_staged_files(&self, at: Timestamp) -> Result<i64, StoreError> {
        let sql = "SELECT jetcopy.expire_staged_files($1)";
        let rows = self.change(sql, &[(&at, Type::TIMESTAMPTZ)]).await?;
        rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(StoreError::Outdated)
    }

    /// What was done, newest first.
    pub async fn operations(&self, filter: &OperationFilter) -> Result<Vec<Operation>, StoreError> {
        let call = Call::of("operations")
            .with("project", filter.project.as_deref())
            .with("request", filter.request.as_deref())
            .with("failed", Some(filter.failed))
            .within(filter.span)
            .with("max_rows", filter.max_rows);
        self.records(&call).await
    }

    /// How often each operation was done, over time.
    pub async fn operation_counts(
        &self,
        project: Option<&str>,
        width: Option<Duration>,
        span: Span,
    ) -> Result<Vec<OperationCount>, StoreError> {
        let call = Call::of("operation_counts").with("project", project).with("width", width);
        self.records(&call.within(span)).await
    }

    /// What in the registry does not fit.
    pub async fn registry_check(&self) -> Result<Vec<Problem>, StoreError> {
        self.records(&Call::of("registry_check")).await
    }
}
