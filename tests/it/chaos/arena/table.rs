//! What owners do to the table while it is written to.

use super::super::fault::TableFault;
use super::Arena;

/// The tables. What has no field in any message is filled by a default.
pub(super) const TABLES: &str = "
    CREATE TABLE events (
        sequence bigint NOT NULL, id bigint NOT NULL, subject text, note text, tag integer NOT NULL DEFAULT 0
    );
    CREATE TABLE parts (sequence bigint NOT NULL, n bigint, blob text)";

/// Puts the table back to what it was, whatever of it was changed: a failover may have taken part of that
/// back.
const RESTORE: &str = "
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'remark') THEN
            ALTER TABLE events RENAME COLUMN remark TO note;
        END IF;
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'place') THEN
            ALTER TABLE events RENAME COLUMN place TO sequence;
        END IF;
        IF (SELECT format_type(atttypid, atttypmod) FROM pg_attribute
            WHERE attrelid = 'events'::regclass AND attname = 'note') = 'jsonb' THEN
            ALTER TABLE events ALTER COLUMN note TYPE text USING note #>> '{}';
        END IF;
    END $$;
    ALTER TABLE events ADD COLUMN IF NOT EXISTS note text, DROP COLUMN IF EXISTS extra;
    ALTER TABLE events
        ALTER COLUMN id TYPE bigint,
        ALTER COLUMN id SET NOT NULL,
        ALTER COLUMN note TYPE text";

/// Another table in the place of this one, with all of its rows.
const EXCHANGE: &str = "
    BEGIN;
    ALTER TABLE events RENAME TO events_before;
    CREATE TABLE events (
        tag integer NOT NULL DEFAULT 0, note text, id bigint NOT NULL, subject text, sequence bigint NOT NULL
    );
    INSERT INTO events (sequence, id, subject, note, tag)
        SELECT sequence, id, subject, note, tag FROM events_before;
    DROP TABLE events_before;
    ALTER TABLE events ALTER COLUMN tag SET DEFAULT DEFAULTED;
    COMMIT";

impl Arena {
    pub(super) async fn begin_table(&mut self, fault: TableFault) {
        let sql = match fault {
            TableFault::Id(to) => format!("ALTER TABLE events ALTER COLUMN id TYPE {to}"),
            TableFault::Note("jsonb") => {
                "ALTER TABLE events ALTER COLUMN note TYPE jsonb USING to_jsonb(note)".into()
            }
            // A cast that is told cuts off; a huge row may lie there.
            TableFault::Note(to) => {
                format!("ALTER TABLE events ALTER COLUMN note TYPE {to} USING note::{to}")
            }
            TableFault::Add => "ALTER TABLE events ADD COLUMN extra text".into(),
            TableFault::Drop => "ALTER TABLE events DROP COLUMN note".into(),
            TableFault::Rename => "ALTER TABLE events RENAME COLUMN note TO remark".into(),
            TableFault::RenameMapped => "ALTER TABLE events RENAME COLUMN sequence TO place".into(),
            TableFault::Exchange => EXCHANGE.replace("DEFAULTED", &self.default.to_string()),
            TableFault::Default => {
                self.default += 1;
                format!("ALTER TABLE events ALTER COLUMN tag SET DEFAULT {}", self.default)
            }
            TableFault::Null => "ALTER TABLE events ALTER COLUMN id DROP NOT NULL".into(),
        };
        self.session().await.batch_execute(&sql).await.unwrap();
    }

    pub(super) async fn end_table(&mut self, _fault: TableFault) {
        self.session().await.batch_execute(RESTORE).await.unwrap();
    }
}
