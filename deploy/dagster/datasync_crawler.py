"""The table of events as a Dagster asset, brought up to date every five minutes.

    dagster dev -f deploy/dagster/datasync_crawler.py

DATASYNC_HOME: the project's folder, with its .venv and .env.
"""

import os
import subprocess

import dagster as dg

HOME = os.environ.get("DATASYNC_HOME", "/opt/datasync-crawler")


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=2, delay=60))
def events(context: dg.AssetExecutionContext) -> None:
    """0: complete. 1: stopped or incomplete, tried again where it was. 2: a setting is wrong."""
    done = subprocess.run(
        [".venv/bin/python", "-m", "scrapy", "crawl", "events"],
        cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    context.log.info(done.stdout)
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise dg.Failure(
            f"exit status {done.returncode}: {last}", allow_retries=done.returncode != 2
        )


job = dg.define_asset_job("update_events", selection=[events])
defs = dg.Definitions(
    assets=[events],
    schedules=[dg.ScheduleDefinition(job=job, cron_schedule="*/5 * * * *")],
)
