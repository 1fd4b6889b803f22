-- One row a measurement of a radio receiver: a hypertable where TimescaleDB is installed, a table of daily partitions where not.
DO $migration$
BEGIN
    IF to_regclass('measurements') IS NOT NULL THEN
        RAISE NOTICE 'table measurements is there already and stays as it is';
        RETURN;
    END IF;

    CREATE TABLE measurements (
        timestamp_utc timestamptz NOT NULL,
        task_id text NOT NULL,
        websdr_id text NOT NULL,
        frequency_mhz double precision NOT NULL,
        sample_rate_khz double precision,
        samples_count bigint,
        snr_db double precision,
        frequency_offset_hz double precision,
        power_dbm double precision,
        s3_path text,
        attributes jsonb
    );
    PERFORM jetcopy.time_table('measurements', 'timestamp_utc', interval '1 day');

    -- Each serves its look-up newest first, within one chunk as a rule. Receivers measure some times a minute, not some
    -- thousand times a second as cameras do, so that three indexes are cheap. A unique key is left to those who need one.
    CREATE INDEX measurements_websdr_id_timestamp_utc ON measurements (websdr_id, timestamp_utc DESC);
    CREATE INDEX measurements_task_id_timestamp_utc ON measurements (task_id, timestamp_utc DESC);
    CREATE INDEX measurements_timestamp_utc ON measurements (timestamp_utc DESC);

    COMMENT ON TABLE measurements IS 'Measurements of radio receivers, one row each';
    COMMENT ON COLUMN measurements.timestamp_utc IS 'When the samples were taken';
    COMMENT ON COLUMN measurements.task_id IS 'The task, or session, that asked for the measurement';
    COMMENT ON COLUMN measurements.websdr_id IS 'The receiver';
    COMMENT ON COLUMN measurements.frequency_mhz IS 'Frequency that was listened to, in MHz';
    COMMENT ON COLUMN measurements.sample_rate_khz IS 'Samples taken, in thousands a second';
    COMMENT ON COLUMN measurements.samples_count IS 'Samples taken, in all';
    COMMENT ON COLUMN measurements.snr_db IS 'Signal-to-noise ratio, in dB';
    COMMENT ON COLUMN measurements.frequency_offset_hz IS 'Frequency found minus frequency listened to, in Hz';
    COMMENT ON COLUMN measurements.power_dbm IS 'Received power, in dBm';
    COMMENT ON COLUMN measurements.s3_path IS 'Where the samples lie';
    COMMENT ON COLUMN measurements.attributes IS 'What else the message carried';
END
$migration$;
