"""Rate limiters from other hands, as servers in front of the mock API.

Those from npm and PyPI are installed into .datasync/benchmarks/limiters when they are first used;
nginx and haproxy have to be on the PATH (Debian: apt-get install nginx-light haproxy).
"""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
HOME = HERE.parent / ".datasync" / "benchmarks" / "limiters"
NPM = {
    "express": "5.3.0", "express-rate-limit": "8.7.5", "fastify": "5.12.8",
    "@fastify/rate-limit": "11.2.0", "rate-limiter-flexible": "11.4.0",
}  # fmt: skip
PYPI = ("Flask-Limiter==4.1.1", "djangorestframework==3.18.3", "waitress==3.0.2")

NODE_KINDS = ("express-legacy", "express-draft-6", "express-draft-7", "express-draft-8",
              "express-none", "express-two", "fastify", "flexible", "flexible-block")  # fmt: skip
WSGI_KINDS = ("flask-fixed", "flask-moving", "flask-sliding", "flask-silent", "flask-two",
              "django")  # fmt: skip
NGINX_KINDS = ("nginx", "nginx-429", "nginx-burst")
KINDS = (*NODE_KINDS, *WSGI_KINDS, *NGINX_KINDS, "haproxy")

#: A limiter that takes longer to listen has failed, in seconds.
START_S = 30.0


class Missing(Exception):
    """What a limiter runs on isn't there."""


def install_npm() -> Path:
    """Where node.mjs stands with its packages. Raises Missing without npm."""
    if not shutil.which("npm") or not shutil.which("node"):
        raise Missing("npm isn't installed")
    folder = HOME / "npm"
    wanted = json.dumps({"private": True, "type": "module", "dependencies": NPM})
    manifest = folder / "package.json"
    if not manifest.exists() or manifest.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "node_modules").mkdir(exist_ok=True)
        manifest.write_text(wanted)
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund"], cwd=folder, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            manifest.unlink()
            raise Missing(f"npm can't install: {done.stderr.strip()[-200:]}")
    shutil.copy(HERE / "limiters" / "node.mjs", folder)
    return folder


def install_pypi() -> Path:
    """The interpreter of an environment with the limiters from PyPI. Raises Missing."""
    python = HOME / "venv" / "bin" / "python"
    done = HOME / "venv" / "installed"
    if not done.exists() or done.read_text() != str(PYPI):
        subprocess.run([sys.executable, "-m", "venv", HOME / "venv"], check=True)
        install = [python, "-m", "pip", "install", "-q", *PYPI]
        pip = subprocess.run(install, check=False, capture_output=True)
        if pip.returncode:
            raise Missing("pip can't install the limiters")
        done.write_text(str(PYPI))
    return python


@contextmanager
def in_front(kind: str, upstream: str, limit: int, window_s: int) -> Iterator[str]:
    """The limiter in front of *upstream* (an address with its port): its own address.

    Raises Missing when what it runs on isn't there.
    """
    arguments = [kind, str(limit), str(window_s), upstream]
    if kind not in NODE_KINDS + WSGI_KINDS:
        with _configured(kind, upstream, limit, window_s) as address:
            yield address
        return
    with _one_at_a_time():
        if kind in NODE_KINDS:
            command = ["node", str(install_npm() / "node.mjs"), *arguments]
        else:
            command = [str(install_pypi()), str(HERE / "limiters" / "wsgi.py"), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "listening on " not in line:
            raise RuntimeError(f"{kind} doesn't listen")
        try:
            yield f"http://127.0.0.1:{line.split()[-1]}"
        finally:
            process.kill()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Threads and processes that would install into the same folder wait for each other."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _configured(kind: str, upstream: str, limit: int, window_s: int) -> Iterator[str]:
    """One of Debian's, with a configuration of its own."""
    program = "haproxy" if kind == "haproxy" else "nginx"
    if not shutil.which(program):
        raise Missing(f"{program} isn't installed")
    port, behind = _free_port(), urlsplit(upstream).netloc
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "conf")
        if program == "haproxy":
            file.write_text(_haproxy(port, behind, limit, window_s))
            command = ["haproxy", "-db", "-f", str(file)]
        else:
            file.write_text(_nginx(kind, port, behind, limit, window_s, folder))
            command = ["nginx", "-e", "stderr", "-c", str(file)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_for(port)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("it doesn't listen")


def _nginx(kind: str, port: int, behind: str, limit: int, window_s: int, folder: str) -> str:
    rate = f"{limit * 60 // window_s}r/m"
    burst = {"nginx": "", "nginx-429": "", "nginx-burst": f"burst={limit - 1} nodelay"}[kind]
    status = "" if kind == "nginx" else "limit_req_status 429;"
    return f"""
daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  limit_req_zone $server_name zone=all:1m rate={rate};
  server {{
    listen 127.0.0.1:{port}; server_name all;
    location / {{ limit_req zone=all {burst}; {status} proxy_pass http://{behind}; }}
  }}
}}
"""


def _haproxy(port: int, behind: str, limit: int, window_s: int) -> str:
    return f"""
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:{port}
  stick-table type ip size 1k expire {10 * window_s}s store http_req_rate({window_s}s)
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {limit} }}
  default_backend behind
backend behind
  server one {behind}
"""
