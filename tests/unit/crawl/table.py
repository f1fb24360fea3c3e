"""What the planner makes of each virtual server: python tests/unit/crawl/table.py [SEEDS [KIND…]].

Prints, per server: crawls, complete, incomplete, false complete (an event that was there all the
time is missing), requests per needed page (median and worst).
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[3]), str(Path(__file__).resolve().parent)]

from virtual import KINDS, Story  # noqa: E402  # found by the path above


def line(kind: tuple[str, str, str], seeds: int, *, crashes: bool) -> str:
    """One line of the table."""
    outcomes: Counter[str] = Counter()
    ratios = []
    for seed in range(seeds):
        told = Story.tell(f"{kind}{seed}", kind, crashes=crashes)
        outcomes[told.outcome] += 1
        outcomes["false"] += told.outcome == "complete" and bool(told.missing)
        ratios.append(told.requests / told.pages)
    ratios.sort()
    median, worst = ratios[len(ratios) // 2], ratios[-1]
    return (
        f"{'/'.join(kind):26} {'killed' if crashes else '':6} {seeds:5} "
        f"{outcomes['complete']:5} {outcomes['incomplete']:5} {outcomes['false']:5} "
        f"{median:7.2f} {worst:7.2f}"
    )


def main() -> None:
    logging.disable(logging.CRITICAL)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    only = set(sys.argv[2:])
    print("server                            seeds  all  some false  median   worst")
    for kind in KINDS:
        if not only or only & set(kind):
            for crashes in (False, True):
                print(line(kind, seeds, crashes=crashes), flush=True)


if __name__ == "__main__":
    main()
