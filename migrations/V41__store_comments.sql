-- What migrations 30 and 36 made has comments too.
COMMENT ON TABLE jetcopy.store_place IS 'In which schema the store''s tables lie; no row: where the search path finds them';
COMMENT ON COLUMN jetcopy.store_place.one_row IS 'True: there is one row at most';
COMMENT ON COLUMN jetcopy.store_place.schema IS 'The schema: [store] schema of the last configuration that named it';
COMMENT ON COLUMN jetcopy.store_choice.real_time IS 'Whether roll-ups have the bucket that is not over yet; NULL: nobody has said';
COMMENT ON FUNCTION jetcopy.monitor_writes() IS 'Who wrote buffers to disk, and why the server made checkpoints, on each version of it';
