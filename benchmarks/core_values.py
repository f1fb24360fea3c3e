"""
What an event costs between the socket and COPY: decode, normalise, encode, in µs, best of rounds.

    python benchmarks/core_values.py [--rounds N] [--body recorded-page.json.gz]

Without a body it makes a page of 5,000 events like the recorded ones. Each row is also given as a
ratio to `json.loads` of the same body on the same machine, so that figures of two machines compare.
"""

import argparse
import gzip
import json
import random
import re
import time
import timeit
import uuid
from pathlib import Path

from datasync_crawler.events.copyrows import encode
from datasync_crawler.events.decoding import PageDecoder
from datasync_crawler.events.timestamps import normalize_timestamps

EVENTS = 5_000


def made_page() -> bytes:
    rng = random.Random(5)
    events = []
    for index in range(EVENTS):
        session = str(uuid.UUID(int=rng.getrandbits(128)))
        event = {
            "id": str(uuid.UUID(int=rng.getrandbits(128))),
            "sessionId": session,
            "userId": str(uuid.UUID(int=rng.getrandbits(128))),
            "type": "click",
            "name": f"event_{rng.getrandbits(30):x}",
            "properties": {"page": "/home"},
            "timestamp": "2026-01-27T19:19:13.629Z" if index % 3 else 1769541612369 + index,
            "session": {"id": session, "deviceType": "tablet", "browser": "Edge"},
        }
        events.append(event)
    envelope = {"data": events, "pagination": {"limit": EVENTS}, "meta": {"total": EVENTS}}
    return json.dumps(envelope, separators=(",", ":")).encode()


def best_steps_us(body: bytes, rounds: int) -> list[float]:
    """Decode, normalise, encode: microseconds an event, each in its quickest round."""
    decoder = PageDecoder()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        page = decoder.decode(body)
        decoded = time.perf_counter()
        normalize_timestamps(page.events)
        normalised = time.perf_counter()
        encode(page.events, plain=page.plain)
        encoded = time.perf_counter()
        times.append((decoded - start, normalised - decoded, encoded - normalised))
    return [min(step) / EVENTS * 1e6 for step in zip(*times, strict=True)]


def variants(body: bytes) -> dict[str, bytes]:
    """The same page as other servers would send it: each takes another road."""
    first = body.index(b'{"id":"')
    return {
        "as it is": body,
        "one event without id": body.replace(b'{"id":', b'{"_":', 1),
        "an unknown field in each": body.replace(b'"type":', b'"x":1,"type":'),
        "a number as name in each": body.replace(b'"name":"event_', b'"name":1,"y":"'),
        "userId null in each": re.sub(rb'"userId":"[^"]*"', b'"userId":null', body),
        "an escape in each": body.replace(b'"/home"', b'"\\/home"'),
        "one NaN": body[:first] + b'{"id":NaN},' + body[first:],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--body", type=Path)
    options = arguments.parse_args()
    body = gzip.decompress(options.body.read_bytes()) if options.body else made_page()
    unit = min(timeit.repeat(lambda: json.loads(body), number=1, repeat=options.rounds))
    unit *= 1e6 / EVENTS
    print(f"json.loads of the page: {unit:.2f} µs an event = 1\n")
    heads = ("decode", "normalise", "encode", "in all", "ratio")
    print(f"{'page':26}" + "".join(f"{head:>11}" for head in heads))
    for name, served in variants(body).items():
        steps = best_steps_us(served, options.rounds)
        figures = (*steps, sum(steps), sum(steps) / unit)
        print(f"{name:26}" + "".join(f"{figure:11.2f}" for figure in figures))


if __name__ == "__main__":
    main()
