"""The workspace's flows: when stages run and what the dashboard shows. What is fresh is DVC's decision alone.

Prefect reads its settings when it is imported, so they are set here, before any module of this package imports it. A
setting that the environment already holds is respected.
"""

import os
from pathlib import Path

from monai_tl.stages import STATE_FOLDER

os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / STATE_FOLDER / "prefect"))
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_RESULTS_PERSIST_BY_DEFAULT", "false")
os.environ.setdefault("PREFECT_RESULTS_DEFAULT_SERIALIZER", "json")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
# how often a run shows life; flows.guards marks it as crashed when that stops
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
# one installation is both sides, so asking the server for its version is a second lost
os.environ.setdefault("PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED", "false")
