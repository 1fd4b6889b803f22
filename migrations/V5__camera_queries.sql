-- The queries of the store as functions, for psql, Grafana and `jetcopy query`: frames and detections.
--
-- Guarantees, here and in V6 and V8: each is one SELECT that the planner inlines into the statement that
-- calls it, so that indexes and the bounds of chunks and partitions serve it; none writes unless its name
-- says so. Spans of time hold `since` and not `until`; an argument that is NULL or left out does not narrow.
-- They find the tables by the search path of whoever calls, and name the schema of each function whose types
-- may be anything: somebody's own function is never called in its place.
--
-- A bound is a CASE, not coalesce(): TimescaleDB compares it with the ends of compressed batches before it
-- decompresses them. Through coalesce() a span of a day was estimated to be all of the table, for which
-- workers were started and code was compiled.
--
-- Their text is checked when they are called: no function keeps a table from being replaced, and tables of
-- other shapes that were there before jetcopy do not stop the migration.
SET LOCAL check_function_bodies = off;

-- Steps from camera to camera in the index: as many rows are read as there are cameras. The steps look at
-- whole days, as chunks and partitions hold them, so that none walks over the rows of a camera that fell
-- silent.
CREATE FUNCTION jetcopy.latest_frames(
    camera text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day'
) RETURNS TABLE (
    "time" timestamptz, camera_id text, frame_id bigint, width integer, height integer, codec text,
    fps double precision, key_frame boolean, size_bytes bigint, processing_ms double precision,
    brightness double precision, motion double precision, attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE cameras (camera_id) AS (
        SELECT coalesce(latest_frames.camera, (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                CASE WHEN latest_frames.since IS NULL THEN '-infinity' ELSE latest_frames.since END, 'UTC')
            ORDER BY f.camera_id LIMIT 1))
        UNION ALL
        SELECT (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                CASE WHEN latest_frames.since IS NULL THEN '-infinity' ELSE latest_frames.since END, 'UTC')
                    AND f.camera_id > c.camera_id
            ORDER BY f.camera_id LIMIT 1)
        FROM cameras c
        WHERE c.camera_id IS NOT NULL AND latest_frames.camera IS NULL
    )
    SELECT l.*
    FROM cameras c
    CROSS JOIN LATERAL (
        SELECT f.time, f.camera_id, f.frame_id, f.width, f.height, f.codec, f.fps, f.key_frame, f.size_bytes,
            f.processing_ms, f.brightness, f.motion, f.attributes
        FROM frame_metadata f
        WHERE f.camera_id = c.camera_id
            AND f.time >= CASE WHEN latest_frames.since IS NULL THEN '-infinity' ELSE latest_frames.since END
        ORDER BY f.time DESC LIMIT 1
    ) l
$$;
COMMENT ON FUNCTION jetcopy.latest_frames IS 'The latest frame of each camera, or of one';

CREATE FUNCTION jetcopy.frames(
    camera text,
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 1000
) RETURNS TABLE (
    "time" timestamptz, camera_id text, frame_id bigint, width integer, height integer, codec text,
    fps double precision, key_frame boolean, size_bytes bigint, processing_ms double precision,
    brightness double precision, motion double precision, attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT f.time, f.camera_id, f.frame_id, f.width, f.height, f.codec, f.fps, f.key_frame, f.size_bytes,
        f.processing_ms, f.brightness, f.motion, f.attributes
    FROM frame_metadata f
    WHERE f.camera_id = frames.camera
        AND f.time >= CASE WHEN frames.since IS NULL THEN '-infinity' ELSE frames.since END
        AND f.time < CASE WHEN frames.until IS NULL THEN 'infinity' ELSE frames.until END
    ORDER BY f.time DESC LIMIT frames.max_rows
$$;
COMMENT ON FUNCTION jetcopy.frames IS 'Frames of a camera in a span of time, newest first';

-- By steps from camera to camera in the index, and the newest times before the newest rows, as
-- jetcopy.detections() has it: no index goes by time alone.
CREATE FUNCTION jetcopy.recent_frames(
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    "time" timestamptz, camera_id text, frame_id bigint, width integer, height integer, codec text,
    fps double precision, key_frame boolean, size_bytes bigint, processing_ms double precision,
    brightness double precision, motion double precision, attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE cameras (camera_id) AS (
        SELECT (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                    CASE WHEN recent_frames.since IS NULL THEN '-infinity' ELSE recent_frames.since END,
                    'UTC')
                AND f.time < date_trunc('day',
                    CASE WHEN recent_frames.until IS NULL THEN 'infinity' ELSE recent_frames.until END, 'UTC')
                    + interval '1 day'
            ORDER BY f.camera_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT f.camera_id FROM frame_metadata f
            WHERE f.time >= date_trunc('day',
                    CASE WHEN recent_frames.since IS NULL THEN '-infinity' ELSE recent_frames.since END,
                    'UTC')
                AND f.time < date_trunc('day',
                    CASE WHEN recent_frames.until IS NULL THEN 'infinity' ELSE recent_frames.until END, 'UTC')
                    + interval '1 day'
                AND f.camera_id > c.camera_id
            ORDER BY f.camera_id LIMIT 1)
        FROM cameras c WHERE c.camera_id IS NOT NULL
    ), newest (time, camera_id) AS (
        SELECT t.time, t.camera_id
        FROM cameras c
        CROSS JOIN LATERAL (
            SELECT f.time, f.camera_id
            FROM frame_metadata f
            WHERE f.camera_id = c.camera_id
                AND f.time >= CASE WHEN recent_frames.since IS NULL THEN '-infinity'
                    ELSE recent_frames.since END
                AND f.time < CASE WHEN recent_frames.until IS NULL THEN 'infinity'
                    ELSE recent_frames.until END
            ORDER BY f.time DESC LIMIT recent_frames.max_rows
        ) t
        ORDER BY t.time DESC LIMIT recent_frames.max_rows
    )
    SELECT l.*
    FROM (SELECT n.camera_id, min(n.time) AS time FROM newest n GROUP BY n.camera_id) n
    CROSS JOIN LATERAL (
        SELECT f.time, f.camera_id, f.frame_id, f.width, f.height, f.codec, f.fps, f.key_frame, f.size_bytes,
            f.processing_ms, f.brightness, f.motion, f.attributes
        FROM frame_metadata f
        WHERE f.camera_id = n.camera_id AND f.time >= n.time
            AND f.time < CASE WHEN recent_frames.until IS NULL THEN 'infinity' ELSE recent_frames.until END
        ORDER BY f.time DESC LIMIT recent_frames.max_rows
    ) l
    ORDER BY l.time DESC LIMIT recent_frames.max_rows
$$;
COMMENT ON FUNCTION jetcopy.recent_frames IS 'Frames of all cameras in a span of time, newest first';

-- To decompress all columns of a batch costs ten times as much as its times alone. So the newest times are
-- found first, and then the rows of those cameras that have them: a hundred detections of two hours
-- decompressed four hundred batches, one of each camera and label, and took 22 ms. Both steps go from camera
-- to camera, for which compressed rows are grouped by camera alone; they look at whole days, as those of
-- latest_frames do.
CREATE FUNCTION jetcopy.detections(
    camera text DEFAULT NULL,
    labelled text DEFAULT NULL,
    min_confidence double precision DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT NULL,
    max_rows bigint DEFAULT 100
) RETURNS TABLE (
    "time" timestamptz, camera_id text, frame_id bigint, track_id bigint, label text,
    confidence double precision, bbox_left double precision, bbox_top double precision,
    bbox_width double precision, bbox_height double precision, attributes jsonb
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE cameras (camera_id) AS (
        SELECT (
            SELECT d.camera_id FROM detection_events d
            WHERE d.time >= date_trunc('day',
                CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END, 'UTC')
                AND d.time < date_trunc('day',
                    CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END, 'UTC')
                    + interval '1 day'
            ORDER BY d.camera_id LIMIT 1)
        WHERE detections.camera IS NULL AND detections.labelled IS NULL
        UNION ALL
        SELECT (
            SELECT d.camera_id FROM detection_events d
            WHERE d.time >= date_trunc('day',
                CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END, 'UTC')
                AND d.time < date_trunc('day',
                    CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END, 'UTC')
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
                    AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity'
                        ELSE detections.since END
                    AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
                ORDER BY d.time DESC LIMIT detections.max_rows) t)
            UNION ALL
            (SELECT d.time, d.camera_id
            FROM detection_events d
            WHERE detections.labelled IS NOT NULL AND detections.camera IS NULL
                AND d.label = detections.labelled
                AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
                AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
                AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
            ORDER BY d.time DESC LIMIT detections.max_rows)
        ) t
        ORDER BY t.time DESC LIMIT detections.max_rows
    )
    SELECT e.* FROM (
        (SELECT d.* FROM (SELECT n.camera_id, min(n.time) AS time FROM newest n GROUP BY n.camera_id) n
            CROSS JOIN LATERAL (
            SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left,
                d.bbox_top, d.bbox_width, d.bbox_height, d.attributes
            FROM detection_events d
            WHERE d.camera_id = n.camera_id AND (detections.labelled IS NULL OR d.label = detections.labelled)
                AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
                AND d.time >= n.time
                AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
                AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
            ORDER BY d.time DESC LIMIT detections.max_rows) d)
        UNION ALL
        (SELECT d.time, d.camera_id, d.frame_id, d.track_id, d.label, d.confidence, d.bbox_left, d.bbox_top,
            d.bbox_width, d.bbox_height, d.attributes
        FROM detection_events d
        WHERE d.camera_id = detections.camera
            AND (detections.labelled IS NULL OR d.label = detections.labelled)
            AND (detections.min_confidence IS NULL OR d.confidence >= detections.min_confidence)
            AND d.time >= CASE WHEN detections.since IS NULL THEN '-infinity' ELSE detections.since END
            AND d.time < CASE WHEN detections.until IS NULL THEN 'infinity' ELSE detections.until END
        ORDER BY d.time DESC LIMIT detections.max_rows)
    ) e
    ORDER BY e.time DESC LIMIT detections.max_rows
$$;
COMMENT ON FUNCTION jetcopy.detections IS
    'Detections by camera, label and confidence in a span of time, newest first';

-- Of the three roll-ups only the one that `width` names is read.
CREATE FUNCTION jetcopy.frame_counts(
    width text DEFAULT '1m',
    camera text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    bucket timestamptz, camera_id text, frames bigint, key_frames bigint, bytes bigint,
    processing_ms_mean double precision, processing_ms_max double precision,
    brightness_mean double precision, motion_mean double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT s.* FROM (
        SELECT r.bucket, r.camera_id, r.frames, r.key_frames, r.bytes, r.processing_ms_mean,
            r.processing_ms_max, r.brightness_mean, r.motion_mean
        FROM frame_stats_1m r
        WHERE frame_counts.width = '1m' AND (frame_counts.camera IS NULL OR r.camera_id = frame_counts.camera)
            AND r.bucket >= CASE WHEN frame_counts.since IS NULL THEN '-infinity' ELSE frame_counts.since END
            AND r.bucket < CASE WHEN frame_counts.until IS NULL THEN 'infinity' ELSE frame_counts.until END
        UNION ALL
        SELECT r.bucket, r.camera_id, r.frames, r.key_frames, r.bytes, r.processing_ms_mean,
            r.processing_ms_max, r.brightness_mean, r.motion_mean
        FROM frame_stats_1h r
        WHERE frame_counts.width = '1h' AND (frame_counts.camera IS NULL OR r.camera_id = frame_counts.camera)
            AND r.bucket >= CASE WHEN frame_counts.since IS NULL THEN '-infinity' ELSE frame_counts.since END
            AND r.bucket < CASE WHEN frame_counts.until IS NULL THEN 'infinity' ELSE frame_counts.until END
        UNION ALL
        SELECT r.bucket, r.camera_id, r.frames, r.key_frames, r.bytes, r.processing_ms_mean,
            r.processing_ms_max, r.brightness_mean, r.motion_mean
        FROM frame_stats_1d r
        WHERE frame_counts.width = '1d' AND (frame_counts.camera IS NULL OR r.camera_id = frame_counts.camera)
            AND r.bucket >= CASE WHEN frame_counts.since IS NULL THEN '-infinity' ELSE frame_counts.since END
            AND r.bucket < CASE WHEN frame_counts.until IS NULL THEN 'infinity' ELSE frame_counts.until END
    ) s
    ORDER BY s.bucket, s.camera_id
$$;
COMMENT ON FUNCTION jetcopy.frame_counts IS
    'Frames, bytes and means over time, from the roll-up of width 1m, 1h or 1d; a '
    'bucket is there when it is over, or at once with [store] real_time';

CREATE FUNCTION jetcopy.detection_counts(
    width text DEFAULT '1m',
    camera text DEFAULT NULL,
    labelled text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT NULL
) RETURNS TABLE (
    bucket timestamptz, camera_id text, label text, detections bigint, confidence_mean double precision,
    confidence_max double precision
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT s.* FROM (
        SELECT r.bucket, r.camera_id, r.label, r.detections, r.confidence_mean, r.confidence_max
        FROM detection_stats_1m r
        WHERE detection_counts.width = '1m'
            AND (detection_counts.camera IS NULL OR r.camera_id = detection_counts.camera)
            AND (detection_counts.labelled IS NULL OR r.label = detection_counts.labelled)
            AND r.bucket >= CASE WHEN detection_counts.since IS NULL THEN '-infinity'
                ELSE detection_counts.since END
            AND r.bucket < CASE WHEN detection_counts.until IS NULL THEN 'infinity'
                ELSE detection_counts.until END
        UNION ALL
        SELECT r.bucket, r.camera_id, r.label, r.detections, r.confidence_mean, r.confidence_max
        FROM detection_stats_1h r
        WHERE detection_counts.width = '1h'
            AND (detection_counts.camera IS NULL OR r.camera_id = detection_counts.camera)
            AND (detection_counts.labelled IS NULL OR r.label = detection_counts.labelled)
            AND r.bucket >= CASE WHEN detection_counts.since IS NULL THEN '-infinity'
                ELSE detection_counts.since END
            AND r.bucket < CASE WHEN detection_counts.until IS NULL THEN 'infinity'
                ELSE detection_counts.until END
        UNION ALL
        SELECT r.bucket, r.camera_id, r.label, r.detections, r.confidence_mean, r.confidence_max
        FROM detection_stats_1d r
        WHERE detection_counts.width = '1d'
            AND (detection_counts.camera IS NULL OR r.camera_id = detection_counts.camera)
            AND (detection_counts.labelled IS NULL OR r.label = detection_counts.labelled)
            AND r.bucket >= CASE WHEN detection_counts.since IS NULL THEN '-infinity'
                ELSE detection_counts.since END
            AND r.bucket < CASE WHEN detection_counts.until IS NULL THEN 'infinity'
                ELSE detection_counts.until END
    ) s
    ORDER BY s.bucket, s.camera_id, s.label
$$;
COMMENT ON FUNCTION jetcopy.detection_counts IS
    'Detections and confidences over time, from the roll-up of width 1m, 1h or 1d; a '
    'bucket is there when it is over, or at once with [store] real_time';

SET LOCAL check_function_bodies = on;
