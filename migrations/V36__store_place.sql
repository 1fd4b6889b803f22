-- In which schema the store's tables lie: [store] schema of the last configuration that named it. No row: where the search path of
-- whoever asks finds them.
CREATE TABLE jetcopy.store_place (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    schema name NOT NULL
);
-- Whoever reads the store is told.
GRANT SELECT ON jetcopy.store_place TO PUBLIC;

-- Whether the roll-ups have the bucket that is not over yet: [store] real_time; NULL where nobody has said.
ALTER TABLE jetcopy.store_choice ADD COLUMN real_time boolean;
GRANT SELECT ON jetcopy.store_choice TO PUBLIC;

DO $comments$
DECLARE
    ends text := '; a bucket is there when it is over, or at once with [store] real_time';
BEGIN
    EXECUTE format('COMMENT ON FUNCTION jetcopy.frame_counts IS %L',
        'Frames, bytes and means over time, from the roll-up of width 1m, 1h or 1d' || ends);
    EXECUTE format('COMMENT ON FUNCTION jetcopy.detection_counts IS %L',
        'Detections and confidences over time, from the roll-up of width 1m, 1h or 1d' || ends);
    EXECUTE format('COMMENT ON FUNCTION jetcopy.measurement_days IS %L',
        'Signal-to-noise ratio in dB and frequency offset in Hz, per day and receiver, from measurements_daily' || ends);
END
$comments$;
