"""Takes the pictures of the page in its states, in Chromium, of real crawls of the mock API.

    python scripts/pictures.py [FOLDER]

Into FOLDER: docs/img if none is named, and then those that the documents show; else all states at
390, 1400 and 1920 pixels, light and dark. Prints layout shift and first paint while it fills. Needs
requirements-dev.txt, chromium and its driver.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "tests" / "support")]

from browser import Browser  # noqa: E402
from crawling import crawl, start_crawl  # noqa: E402
from dashboards import DashboardServer  # noqa: E402
from databases import Database, Server  # noqa: E402
from mockserver import MockProcess  # noqa: E402
from ports import free_port  # noqa: E402

from datasync_crawler.local_postgres.embedded import ensure_running  # noqa: E402

DOCUMENTS = {
    "waiting": "dashboard-light",
    "history": "dashboard-dark",
    "processes": "dashboard-processes-light",
}
SIZES = {390: 844, 1400: 900, 1920: 1080}
PAINT = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
SHIFT = """window.shift = 0; new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({type: "layout-shift", buffered: true});"""
FAST = ("-s", "BULK_PAGE_SIZE=1000")


class Camera:
    """Pictures of one page after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.browser = Browser()
        self.for_documents = folder == PROJECT / "docs" / "img"

    def take(self, url: str, state: str) -> None:
        """The page as it is, at each size in each scheme."""
        for width, height in SIZES.items():
            for dark in (False, True):
                name = f"{state}-{width}-{'dark' if dark else 'light'}"
                if self.for_documents:
                    wanted = f"{state}-1400-{DOCUMENTS.get(state, '').rpartition('-')[2]}"
                    if name not in {wanted, "waiting-390-light"}:
                        continue
                    name = "dashboard-phone" if width == 390 else DOCUMENTS[state]
                self.browser.open(url, width=width, dark=dark)
                time.sleep(2.5)
                page = self.browser.script("return document.documentElement.scrollHeight")
                print(f"{name}: {page} px, axe: {self.browser.violations()}")
                self.browser.driver.execute_cdp_cmd(
                    "Emulation.setDeviceMetricsOverride",
                    {"width": width, "height": max(page, height), "deviceScaleFactor": 1,
                     "mobile": width < 600},
                )  # fmt: skip
                self.browser.driver.save_screenshot(str(self.folder / f"{name}.png"))

    def shift(self, url: str, seconds: float) -> float:
        """The layout shift of so long, in a browser whose window hasn't had another size."""
        browser = Browser()
        browser.open(url, width=1400)
        browser.script(SHIFT)
        time.sleep(seconds)
        print(f"first contentful paint: {browser.script(PAINT):.0f} ms")
        shift = float(browser.script("return window.shift"))
        browser.close()
        return shift


def filling(camera: Camera, server: Server) -> None:
    """Filling, waiting, crashed, up to date, with history, needs you."""
    database = fresh(server, "filling")
    limits = ("--rate-limit", "6", "--rate-window", "12", "--latency-ms", "300")
    with (
        MockProcess("--events", "60000", *limits, "--fault", "bad-events:each=4000") as mock,
        DashboardServer(database) as page,
    ):
        camera.take(page.url, "empty")
        running = start_crawl(mock, database, *FAST, log=subprocess.DEVNULL)
        if not camera.for_documents:
            print(f"layout shift in 30 s: {camera.shift(page.url, 30):.3f}")
        else:
            time.sleep(30)
        camera.take(page.url, "waiting")
        if not camera.for_documents:
            running.send_signal(signal.SIGKILL)
            running.wait()
            time.sleep(11)
            camera.take(page.url, "crashed")
        else:
            running.terminate()
            running.wait()
        mock.config(rate_limit=None)
        running = start_crawl(mock, database, *FAST, log=subprocess.DEVNULL)
        running.wait()
        camera.take(page.url, "up-to-date")
        for growth in (800, 1200, 300, 0, 2600, 900, 1500):
            mock.config(grow=growth)
            crawl(mock, database, *FAST)
        # A night between two runs, as a timer starts them.
        database.execute(
            "WITH moved AS (SELECT id, (max(id) OVER () - id) * interval '23h 40min' AS by "
            "FROM crawl_runs) UPDATE crawl_runs AS r SET started_at = started_at - by, "
            "finished_at = finished_at - by, heartbeat_at = heartbeat_at - by "
            "FROM moved WHERE moved.id = r.id"
        )
        camera.take(page.url, "history")
        mock.config(api_key="another")
        crawl(mock, database, *FAST)
        camera.take(page.url, "needs-you")
        server.release()  # type: ignore[attr-defined]
        time.sleep(3)
        camera.take(page.url, "away")


def processes(camera: Camera, server: Server) -> None:
    """Three processes that share a crawl, one of them killed."""
    database = fresh(server, "processes")
    with (
        MockProcess("--events", "400000", "--latency-ms", "1500") as mock,
        DashboardServer(database) as page,
    ):
        few = (*FAST, "-s", "WORKERS=2")
        running = [start_crawl(mock, database, *few, log=subprocess.DEVNULL) for _ in range(4)]
        time.sleep(15)
        running[-1].kill()
        time.sleep(12)
        camera.take(page.url, "processes")
        for one in running:
            one.terminate()
            one.wait()
        camera.take(page.url, "stopped")


def unreachable(camera: Camera, server: Server) -> None:
    """An API that doesn't answer yet."""
    database = fresh(server, "unreachable")
    with MockProcess("--events", "1") as mock:
        away = {"API_BASE_URL": mock.url, "API_KEY": "k"}
    slow = ("-s", "RETRY_BACKOFF_BASE=60")
    running = start_crawl(None, database, *slow, env=away, log=subprocess.DEVNULL)
    with DashboardServer(database) as page:
        time.sleep(5)
        camera.take(page.url, "unreachable")
    running.terminate()
    running.wait()


def rejections(camera: Camera, server: Server) -> None:
    """A crawl whose every twentieth event can't be stored, more than MAX_REJECTED allows."""
    database = fresh(server, "rejections")
    with (
        MockProcess("--events", "20000", "--fault", "bad-events:each=20") as mock,
        DashboardServer(database) as page,
    ):
        crawl(mock, database, *FAST, "-s", "MAX_REJECTED=0.01")
        camera.take(page.url, "rejections")


def fresh(server: Server, name: str) -> Database:
    """An empty database of that name."""
    server.execute(f"CREATE DATABASE {name}")
    return Database({**server.params, "dbname": name})


def main() -> None:
    """Takes them."""
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else PROJECT / "docs" / "img"
    folder.mkdir(parents=True, exist_ok=True)
    camera = Camera(folder)
    with tempfile.TemporaryDirectory() as data:
        running = ensure_running(Path(data) / "postgres", port=free_port())
        server = Server(running.conninfo("postgres"))
        server.release = running.release  # type: ignore[attr-defined]
        processes(camera, server)
        if not camera.for_documents:
            rejections(camera, server)
            unreachable(camera, server)
        filling(camera, server)
    camera.browser.close()


if __name__ == "__main__":
    main()
