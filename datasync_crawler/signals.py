"""The crawler's own signals.

stopping()
    The crawl is closing, for whatever reason. Sent once by `extensions.stop`; every component that
    waits for something ends its wait.
stop_requested(reason, sentence)
    Close the crawl with this finish reason; *sentence* gives the user the cause and the remedy.
    Sent by any component, handled by `extensions.stop`.
in_flight_limit_changed(limit)
    *limit* requests may be in flight from now on. Sent by `handlers.gate`, handled by
    `extensions.throttle`.
"""

stopping = object()
stop_requested = object()
in_flight_limit_changed = object()
