-- Detections of all cameras, or of a label, that decompress no more than they answer.
--
-- To decompress all columns of a batch costs ten times as much as its times alone. So the newest times are found first, and then
-- the rows of those cameras that have them: a hundred detections of two hours decompressed four hundred batches, one of each
-- camera and label, and took 22 ms. Both steps go from camera to camera, for which compressed rows are grouped by camera alone.
SET LOCAL check_function_bodies = off;

-- Where no label is given, the newest of each camera are merged, by steps from camera to camera in the index. The steps look at whole
-- days, as those of latest_frames do.
CREATE OR REPLACE FUNCTION jetcopy.detections(
    camera text DEFAULT NULL,
    labelled text DEFAULT NULL,
    min_confidence double precision DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    "time" timestamptz, camera_id text, frame_id bigint, track_id bigint, label text, confidence double precision,
    bbox_left double precision, bbox_top double precision, bbox_width double precision, bbox_height double precision,
    attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE cameras (camera_id) AS (
        SELECT (
            SELECT d.camera_id FROM detection_events d
            WHERE d.time >= date_trunc('day', CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END, 'UTC')
                AND d.time < date_trunc('day', CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END, 'UTC')
                    + interval '1 day'
            ORDER BY d.camera_id LIMIT 1)
        WHERE detections.camera IS NULL AND detections.labelled IS NULL
        UNION ALL
        SELECT (
            SELECT d.camera_id FROM detection_events d
            WHERE d.time >= date_trunc('day', CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END, 'UTC')
                AND d.time < date_trunc('day', CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END, 'UTC')
                    + interval '1 day'
                AND d.camera_id > c.camera_id
            ORDER BY d.camera_id LIMIT 1)
        FROM cameras c WHERE c.camera_id IS NOT NULL
    ), newest (time, camera_id) AS (
        SELECT t.time, t.camera_id FROM (
            (SELECT t.time, t.camera_id FROM cameras c CROSS JOIN LATERAL (
                SELECT d.time, d.camera_id
                FROM detection_events d
                WHERE d.camera_id = c.camera_id
                    AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
                    AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
                    AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
                ORDER BY d.time DESC LIMIT detections.max_rows) t)
            UNION ALL
            (SELECT d.time, d.camera_id
            FROM detection_events d
            WHERE detections.labelled IS NOT NULL AND detections.camera IS NULL AND d.label = detections.labelled
                AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
                AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
                AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
            ORDER BY d.time DESC LIMIT detections.max_rows)
        ) t
        ORDER BY t.time DESC LIMIT detections.max_rows
    )
    SELECT e.* FROM (
        (SELECT d.* FROM (SELECT n.camera_id, min(n.time) AS time FROM newest n GROUP BY n.camera_id) n CROSS JOIN LATERAL (
            SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left, d.bbox_top, d.bbox_width,
                d.bbox_height, d.attributes
            FROM detection_events d
            WHERE d.camera_id = n.camera_id AND (detections.labelled IS NULL OR d.label = detections.labelled)
                AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
                AND d.time >= n.time
                AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
                AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
            ORDER BY d.time DESC LIMIT detections.max_rows) d)
        UNION ALL
        (SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left, d.bbox_top, d.bbox_width,
            d.bbox_height, d.attributes
        FROM detection_events d
        WHERE d.camera_id = detections.camera AND (detections.labelled IS NULL OR d.label = detections.labelled)
            AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
            AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
            AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
        ORDER BY d.time DESC LIMIT detections.max_rows)
    ) e
    ORDER BY e.time DESC LIMIT detections.max_rows
$$;

SET LOCAL check_function_bodies = on;
