"""`python -m stateside.bench.anchors.commit_per_event FOLDER`: one LMDB transaction, with its fdatasync, for each event
of 100 bytes.

What durable writes cost without group commit: one after the other, no network, no proxy. One JSON object on stdout.
"""

import argparse
import json
from time import monotonic

import lmdb

EVENT_SIZE = 100
MAP_SIZE = 1 << 30


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="stateside.bench.anchors.commit_per_event", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    environment = lmdb.open(options.folder, map_size=MAP_SIZE, sync=True, metasync=True)
    count, begun = 0, monotonic()
    while (seconds := monotonic() - begun) < options.seconds:
        with environment.begin(write=True) as transaction:
            transaction.put(count.to_bytes(8, "big"), bytes(EVENT_SIZE), append=True)
        count += 1
    environment.close()
    print(json.dumps({"commits": count, "seconds": seconds, "commits_per_s": count / seconds}))


if __name__ == "__main__":
    main()
