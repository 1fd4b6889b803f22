#!/usr/bin/env python3
"""Says what the tests of `make test` ran on, and names what was left out.

It reads the accounts that src/testbed/account.rs writes into the directory that is named, and writes
summary.txt beside them: the same, and what each test ran on."""

import sys
from collections import defaultdict
from pathlib import Path

directory = Path(sys.argv[1])
# What each test ran on, and what it left out for want of what.
stores = defaultdict(set)
skips = defaultdict(set)
for path in directory.glob("*.tsv"):
    for line in path.read_text().splitlines():
        kind, program, test, what, detail = line.split("\t")
        if kind == "store":
            stores[program, test].add(what)
        else:
            skips[program, test].add((what, detail))
# What the run on plain PostgreSQL left to the run with TimescaleDB is not left out.
for test, left_out in skips.items():
    if "timescaledb" in stores[test]:
        left_out -= {skip for skip in left_out if skip[0] == "timescaledb"}


def tests(number):
    return f"{number} test" if number == 1 else f"{number} tests"


on = {store: {test for test, of in stores.items() if store in of} for store in ("plain", "timescaledb")}
text = [
    "",
    f"ran on plain PostgreSQL: {tests(len(on['plain']))}",
    f"ran on TimescaleDB: {tests(len(on['timescaledb']))}",
]
for need in sorted({need for left_out in skips.values() for need, _ in left_out}):
    of_need = sorted((test, what) for test, left_out in skips.items() for of, what in left_out if of == need)
    text.append(f"skipped for want of {need}: {tests(len({test for test, _ in of_need}))}")
    text += [f"    {program} {test}: {what}" for (program, test), what in of_need]
if not any(skips.values()):
    text.append("skipped: none")
text.append(f"which test ran on what: {directory}/summary.txt")
print("\n".join(text), flush=True)
lines = [f"{program} {test}: {', '.join(sorted(of))}" for (program, test), of in sorted(stores.items()) if of]
(directory / "summary.txt").write_text("\n".join(text[1:-1] + lines) + "\n")
