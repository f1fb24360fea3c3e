"""Rate limiters from PyPI in front of another server: python wsgi.py KIND LIMIT WINDOW_S UPSTREAM.

Prints "listening on PORT". Ends when its standard input does. Runs in an environment of its own,
with Flask-Limiter, Django REST framework and waitress in it.
"""

from __future__ import annotations

import http.client
import os
import sys
import threading
from typing import Any
from urllib.parse import urlsplit

from waitress import create_server

KIND, LIMIT, WINDOW_S, UPSTREAM = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


def forward(path: str, key: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, fields and body of the server behind."""
    parts = urlsplit(UPSTREAM)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", path, headers={"X-API-Key": key})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    hop = {"transfer-encoding", "connection", "content-length", "date", "server"}
    fields = [(name, value) for name, value in answer.getheaders() if name.lower() not in hop]
    return answer.status, fields, body


def flask(strategy: str, limits: str, *, headers: bool) -> Any:
    from flask import Flask, Response, request  # noqa: PLC0415
    from flask_limiter import Limiter  # noqa: PLC0415

    app = Flask(__name__)
    Limiter(
        lambda: "all",
        app=app,
        application_limits=[limits],
        strategy=strategy,
        headers_enabled=headers,
        storage_uri="memory://",
    )

    @app.get("/<path:path>")
    def any_path(path: str) -> Response:  # noqa: ARG001  # Flask calls by keyword
        status, fields, body = forward(request.full_path, request.headers.get("X-API-Key", ""))
        return Response(body, status, fields)

    return app


def django() -> Any:
    from django.conf import settings  # noqa: PLC0415

    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__", SECRET_KEY="x", INSTALLED_APPS=[],
        REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [], "DEFAULT_PERMISSION_CLASSES": [],
                        "UNAUTHENTICATED_USER": None,
                        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]},
    )  # fmt: skip
    import django as framework  # noqa: PLC0415

    framework.setup()
    from django.core.wsgi import get_wsgi_application  # noqa: PLC0415
    from django.http import HttpResponse  # noqa: PLC0415
    from django.urls import re_path  # noqa: PLC0415
    from rest_framework.decorators import api_view, throttle_classes  # noqa: PLC0415
    from rest_framework.throttling import SimpleRateThrottle  # noqa: PLC0415

    class Throttle(SimpleRateThrottle):
        rate = "any"

        def parse_rate(self, rate: str) -> tuple[int, int]:
            return LIMIT, WINDOW_S

        def get_cache_key(self, request: Any, view: Any) -> str:
            return "all"

    @api_view(["GET"])
    @throttle_classes([Throttle])
    def any_path(request: Any) -> HttpResponse:
        key = request.headers.get("X-API-Key", "")
        status, fields, body = forward(request.get_full_path(), key)
        reply = HttpResponse(body, status=status)
        for name, value in fields:
            reply[name] = value
        return reply

    globals()["urlpatterns"] = [re_path("", any_path)]
    return get_wsgi_application()


def application() -> Any:
    one = f"{LIMIT} per {WINDOW_S} second"
    kinds = {
        "flask-fixed": lambda: flask("fixed-window", one, headers=True),
        "flask-moving": lambda: flask("moving-window", one, headers=True),
        "flask-sliding": lambda: flask("sliding-window-counter", one, headers=True),
        "flask-silent": lambda: flask("moving-window", one, headers=False),
        "flask-two": lambda: flask(
            "fixed-window", f"{one};{3 * LIMIT} per {4 * WINDOW_S} second", headers=True
        ),
        "django": django,
    }
    return kinds[KIND]()


def wait_for_the_end() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    server = create_server(application(), host="127.0.0.1", port=0, threads=16)
    threading.Thread(target=wait_for_the_end, daemon=True).start()
    print(f"listening on {server.effective_port}", flush=True)
    server.run()
