"""A consumer as it is written in Python: nats-py and asyncpg, into the table of `make bench`.

It pulls batches from a durable consumer with AckAll, decodes MessagePack, writes each batch by a binary COPY in one transaction and
acknowledges it once, after the commit, while the next batch is fetched. With `--idempotent` a batch goes through a temporary table and
INSERT ... ON CONFLICT DO NOTHING, which is what it takes to be safe against a batch that comes again. It ends after `--messages`.
"""

import argparse
import asyncio
import json

import asyncpg
import msgpack
import nats
import uvloop
from nats.js.api import AckPolicy, ConsumerConfig

# As many as jetcopy pulls at a time.
BATCH = 5_000
# Microseconds from the Unix epoch to PostgreSQL's.
EPOCH = 946_684_800_000_000
COLUMNS = (
    "time", "frame_id", "camera_id", "width", "height", "codec", "fps", "key_frame", "processing_ms", "brightness",
    "motion", "attributes",
)
# The messages call the first column otherwise.
FIELDS = ("timestamp",) + COLUMNS[1:]
STAGE = "stage"


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("nats", "postgres", "stream", "table"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--idempotent", action="store_true")
    return parser.parse_args()


async def connect(url):
    database = await asyncpg.connect(url)
    # Numbers and text instead of objects of datetime: the quicker ways that asyncpg has.
    await database.set_type_codec(
        "timestamptz", schema="pg_catalog", format="tuple",
        encoder=lambda micros: (micros - EPOCH,), decoder=lambda found: found[0] + EPOCH,
    )
    await database.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary",
        encoder=lambda value: b"\x01" + json.dumps(value, separators=(",", ":")).encode(),
        decoder=lambda found: json.loads(found[1:]),
    )
    return database


async def write(database, table, rows, idempotent):
    async with database.transaction():
        target = STAGE if idempotent else table
        await database.copy_records_to_table(target, records=rows, columns=COLUMNS)
        if idempotent:
            await database.execute(f"INSERT INTO {table} SELECT * FROM {STAGE} ON CONFLICT DO NOTHING")


async def main():
    asked = arguments()
    database = await connect(asked.postgres)
    if asked.idempotent:
        await database.execute(f"CREATE TEMP TABLE {STAGE} (LIKE {asked.table}) ON COMMIT DELETE ROWS")
    client = await nats.connect(asked.nats)
    jetstream = client.jetstream()
    config = ConsumerConfig(
        durable_name="python", ack_policy=AckPolicy.ALL, ack_wait=3_600, max_ack_pending=4 * BATCH
    )
    await jetstream.add_consumer(asked.stream, config)
    pulled = await jetstream.pull_subscribe_bind("python", asked.stream, pending_msgs_limit=-1, pending_bytes_limit=-1)
    left = asked.messages

    def fetch(wanted):
        return asyncio.create_task(pulled.fetch(wanted, timeout=30))

    batch = fetch(min(BATCH, left))
    while left > 0:
        messages = await batch
        left -= len(messages)
        if left > 0:
            batch = fetch(min(BATCH, left))
        rows = [tuple(map(msgpack.unpackb(message.data).__getitem__, FIELDS)) for message in messages]
        await write(database, asked.table, rows, asked.idempotent)
        await messages[-1].ack()
    await client.drain()
    await database.close()


uvloop.run(main())
