"""A crawl every five minutes by Airflow (2.4 or newer, and 3), and an alarm when none is complete.

Goes into the DAG folder. DATASYNC_HOME: the project's folder, with its .venv and .env. The exit
status is the task's: 0 succeeds; 1 (stopped or incomplete) is tried again and goes on where it was;
2 (a setting is wrong) fails at each try, with the sentence that says what to set in the task's log.
"""

import os
from datetime import datetime, timedelta, timezone

from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator

HOME = os.environ.get("DATASYNC_HOME", "/opt/datasync-crawler")

with DAG(
    dag_id="datasync_crawler",
    schedule="*/5 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),  # noqa: UP017  # Airflow 2 runs on 3.9
    catchup=False,
    max_active_runs=1,  # a second crawl would only share the work of the first
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
) as dag:
    crawl = BashOperator(
        task_id="crawl",
        cwd=HOME,
        # exec: Airflow's SIGTERM reaches the crawl, which commits what was fetched.
        bash_command="exec .venv/bin/python -m scrapy crawl events",
        append_env=True,
        skip_on_exit_code=None,
    )
    check = BashOperator(
        task_id="check",
        cwd=HOME,
        bash_command="exec .venv/bin/python -m scrapy status --max-age 15m",
        append_env=True,
        skip_on_exit_code=None,
        trigger_rule="all_done",  # also when the crawl has failed: one failure is no alarm
        retries=0,
    )
    crawl >> check
