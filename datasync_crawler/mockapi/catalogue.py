"""All the faults there are: importing this module fills the register."""

from __future__ import annotations

# Imported for what they enter into the register.
from datasync_crawler.mockapi import badevents, misbehave_pages, misbehave_replies
from datasync_crawler.mockapi.faults import REGISTER, parse_fault

__all__ = [
    "REGISTER",
    "badevents",
    "fault_list",
    "misbehave_pages",
    "misbehave_replies",
    "parse_fault",
]


def fault_list() -> str:
    """Give name and one-line description of each fault and each kind of bad event, a line each."""
    rows = [(name, cls.description()) for name, cls in REGISTER.items()]
    rows += [
        (f"bad-events:kind={kind}", f"{outcome}: {text}")
        for kind, (outcome, text) in badevents.KINDS.items()
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows)
