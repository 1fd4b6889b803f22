-- Generic time series: a document of metadata for each, replaced by newer ones, and their points in long form.
DO $migration$
BEGIN
    IF to_regclass('time_series_metadata') IS NOT NULL THEN
        RAISE NOTICE 'table time_series_metadata is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE time_series_metadata (
        id text PRIMARY KEY,
        name text,
        description text,
        time_column text,
        value_columns text[],
        attributes jsonb,
        updated_at timestamptz NOT NULL
    );

    COMMENT ON TABLE time_series_metadata IS 'What each time series is; a newer document of an id replaces the older one';
    COMMENT ON COLUMN time_series_metadata.id IS 'The series';
    COMMENT ON COLUMN time_series_metadata.name IS 'Its name for people';
    COMMENT ON COLUMN time_series_metadata.description IS 'What it is, for people';
    COMMENT ON COLUMN time_series_metadata.time_column IS 'Name of the column of time where the series comes from';
    COMMENT ON COLUMN time_series_metadata.value_columns IS 'Names of its columns of values; NULL: those that its points name';
    COMMENT ON COLUMN time_series_metadata.attributes IS 'What else the document carried';
    COMMENT ON COLUMN time_series_metadata.updated_at IS 'Time of the event that this row is from; an older event never replaces it';
END
$migration$;

DO $migration$
BEGIN
    IF to_regclass('time_series_data_points') IS NOT NULL THEN
        RAISE NOTICE 'table time_series_data_points is there already and stays as it is';
        RETURN;
    END IF;

    -- No reference to the metadata: points may come before the document that describes them.
    CREATE TABLE time_series_data_points (
        timestamp timestamptz NOT NULL,
        series_id text NOT NULL,
        column_name text NOT NULL,
        value double precision
    );
    PERFORM jetcopy.time_table('time_series_data_points', 'timestamp', interval '1 day');

    -- Serves "one column of a series over a span of time" and, by skipping from column to column, all of them. A unique
    -- key is left to those who need one: exactly-once does not.
    CREATE INDEX time_series_data_points_series_id_column_name_timestamp
        ON time_series_data_points (series_id, column_name, timestamp DESC);

    COMMENT ON TABLE time_series_data_points IS 'Points of time series, one row a column and time';
    COMMENT ON COLUMN time_series_data_points.timestamp IS 'The time that the value is of';
    COMMENT ON COLUMN time_series_data_points.series_id IS 'The series: time_series_metadata.id';
    COMMENT ON COLUMN time_series_data_points.column_name IS 'Which of the series'' columns the value is of';
    COMMENT ON COLUMN time_series_data_points.value IS 'The value, in the unit of its column; NULL: there was none, or no number';
END
$migration$;
