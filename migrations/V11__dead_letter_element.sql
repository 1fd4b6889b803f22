-- With bad_element = "element", a single element of a message becomes a dead letter while the others become rows: its
-- place in the array that for_each names, from 0; table_name says in which table its row is missing. NULL where the
-- message is a dead letter as a whole.
ALTER TABLE jetcopy.dead_letters ADD COLUMN element integer CHECK (element >= 0);
