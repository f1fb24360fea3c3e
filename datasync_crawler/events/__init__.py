"""Values: events, rejections, timestamps; bytes to events, events to COPY text. Pure."""
