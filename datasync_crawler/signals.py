"""The crawler's own signals: how its components know of each other.

stopping()
    The crawl is closing, for whatever reason. Sent once by `extensions.stop`; whoever waits for
    something ends its wait.
stop_requested(reason, sentence)
    Close the crawl with this finish reason; *sentence* tells the user why and what to do. Sent by
    any component, handled by `extensions.stop`.
in_flight_limit_changed(limit)
    So many requests may be in flight from now on. Sent by `handlers.gate`, handled by
    `extensions.throttle`.
"""

stopping = object()
stop_requested = object()
in_flight_limit_changed = object()
