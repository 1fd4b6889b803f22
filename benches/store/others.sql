-- The tables beside frames and detections: thirty days of measurements, sixty of operations, seven of time series, and a
-- registry. Values wander and jitter as those of instruments do; times are those of clocks, to the microsecond.
SELECT setseed(0.5);

-- Twenty receivers that measure every two and a half minutes, in sessions of eight hours: about 11,500 rows a day.
INSERT INTO measurements (timestamp_utc, task_id, websdr_id, frequency_mhz, sample_rate_khz, samples_count, snr_db,
    frequency_offset_hz, power_dbm, s3_path)
SELECT at, 'task-' || n / 192, 'rx-' || lpad(receiver::text, 2, '0'), (ARRAY[3.5, 7.1, 14.2, 145.5])[1 + (n / 192 + receiver) % 4],
    (ARRAY[12, 48])[1 + receiver % 2], 12000 + (random() * 500)::bigint,
    round((15 + receiver / 2.0 + 8 * sin(n / 90.0) + 3 * (random() + random() - 1))::numeric, 2)::float8,
    round((receiver * 3 + n * 0.001 + 4 * (random() + random() - 1))::numeric, 3)::float8,
    round((-90 + receiver + 5 * sin(n / 90.0) + 2 * (random() + random() - 1))::numeric, 2)::float8,
    format('s3://samples/%s/rx-%s/%s.iq', to_char(at AT TIME ZONE 'UTC', 'YYYY/MM/DD'), receiver, md5(n::text || receiver))
FROM (
    SELECT n, receiver, now() - n * interval '150 s' - receiver * interval '1 s' - random() * interval '800 ms' AS at
    FROM generate_series(1, 30 * 24 * 24) n, generate_series(1, 20) receiver
) m
ORDER BY at;

INSERT INTO websdrs (id, name, updated_at) SELECT 'rx-' || lpad(n::text, 2, '0'), 'Receiver ' || n, now() FROM generate_series(1, 20) n;

-- Forty series of three columns, a value a minute each.
INSERT INTO time_series_metadata (id, name, value_columns, updated_at)
SELECT 'series-' || s, 'Series ' || s, CASE WHEN s % 2 = 0 THEN '{temperature,humidity,pressure}'::text[] END, now()
FROM generate_series(1, 40) s;
INSERT INTO time_series_data_points (timestamp, series_id, column_name, value)
SELECT at, 'series-' || s, c, CASE c
    WHEN 'temperature' THEN round((20 + s / 4.0 + 5 * sin(n / 230.0) + 0.3 * random())::numeric, 2)
    WHEN 'humidity' THEN round((55 + 20 * cos(n / 230.0) + random())::numeric, 1)
    ELSE round((1013 + 9 * sin(n / 1900.0) + 0.2 * random())::numeric, 2) END::float8
FROM (
    SELECT n, s, now() - n * interval '1 minute' - s * interval '1 s' - random() * interval '50 ms' AS at
    FROM generate_series(1, 7 * 24 * 60) n, generate_series(1, 40) s
) p, unnest('{temperature,humidity,pressure}'::text[]) c
ORDER BY at;

-- Five thousand projects with a hundred thousand files, of which one in a thousand waits for its promotion. Each 33rd project is
-- deleted, and some of its files are left over.
INSERT INTO projects (id, name, path, size_bytes, table_count, bucket_count, status, settings, created_at, updated_at)
SELECT 'p' || n, 'Project ' || n, '/projects/' || n, (random() * 1e10)::bigint, n % 20, n % 7,
    CASE WHEN n % 50 = 0 THEN 'locked' WHEN n % 33 = 0 THEN 'deleted' ELSE 'active' END, jsonb_build_object('quota', n % 100),
    now() - n * interval '1 hour', now() - n * interval '1 minute'
FROM generate_series(1, 5000) n;
INSERT INTO files (project_id, path, name, size_bytes, content_type, md5, sha256, staged, expires_at, tags, status, created_at, updated_at)
SELECT 'p' || n, 'dir-' || f % 17 || '/' || md5(f::text) || '.csv', 'file-' || f, (random() * 1e8)::bigint, 'text/csv',
    md5('a' || f), encode(sha256(f::text::bytea), 'hex'), f % 1000 = 0,
    CASE WHEN f % 1000 = 0 THEN now() + (f % 7 - 3) * interval '1 hour' END, to_jsonb(ARRAY['tag-' || f % 50, 'kind-' || f % 3]),
    CASE WHEN n % 33 = 0 AND n % 50 > 0 AND f % 80 > 0 THEN 'deleted' ELSE 'active' END,
    now() - f * interval '20 s', now() - f * interval '20 s'
FROM (SELECT f, 1 + f % 5000 AS n FROM generate_series(1, 100000) f) f;

-- What was done to them: 17,280 operations a day, twice as long as the log stays uncompressed, and what made the projects as they
-- are. Each hundredth has a table more than the log knows of.
INSERT INTO operations_log (timestamp, request_id, project_id, operation, resource, details, duration_ms, status, error)
SELECT now() - n * interval '5 s' - random() * interval '4 s', md5(n::text), 'p' || 1 + floor(5000 * random() * random())::int,
    (ARRAY['query', 'query', 'query', 'write', 'alter_table', 'list'])[1 + floor(random() * 6)::int], 'table-' || n % 40,
    jsonb_build_object('rows', (random() * 5000)::int, 'client', 'c' || n % 300),
    round((exp(1 + 3 * random()))::numeric, 3)::float8, CASE WHEN n % 40 = 0 THEN 'failed' ELSE 'ok' END,
    CASE WHEN n % 40 = 0 THEN 'timeout after 30 s' END
FROM generate_series(1, 60 * 17280) n
UNION ALL
SELECT now() - interval '59 days' + p.n * interval '16 min' + random() * interval '10 min', md5(p.n || made.operation || made.n),
    'p' || p.n, made.operation, 'made-' || made.n, jsonb_build_object('client', 'c' || p.n % 300), 5 + random(), 'ok', NULL
FROM generate_series(1, 5000) p (n)
CROSS JOIN LATERAL (
    SELECT 'create_project', 1
    UNION ALL SELECT 'create_table', t FROM generate_series(1, p.n % 20 - CASE WHEN p.n % 100 = 1 THEN 1 ELSE 0 END) t
    UNION ALL SELECT 'create_bucket', b FROM generate_series(1, p.n % 7) b
    UNION ALL SELECT 'create_file', f FROM generate_series(1, 20) f
) made (operation, n)
ORDER BY 1;
