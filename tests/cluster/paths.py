"""Where everything lies: the clone this package is part of, the cache all clones share, and the running cluster's
files. Knows names, not contents."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
# Where pods see it: a clone may lie below /tmp, which every pod of ours covers with a folder of its own.
POD_VENV = Path("/opt/venv")

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minisgl"
BIN = CACHE / "bin"  # links to the built programs; other rooms look here for kubectl, helm and promtool
MODELS = CACHE / "models"  # filled by `make model`; a volume of the cluster
STORE = CACHE / "store"  # containerd's images; kept between runs, so that a warm start imports nothing
LOGS = CACHE / "logs"  # of the last cluster; kept by `down`, emptied by the next cold `up`
AUDIT = LOGS / "audit.jsonl"
LOCK = CACHE / "cluster.lock"

STATE = CACHE / "cluster"  # the running cluster; `down` removes it whole
CONFIG = STATE / "config"
PKI = STATE / "pki"
PIDS = STATE / "pids"
KUBECONFIG = STATE / "kubeconfig"
PORT = STATE / "port"
READY = STATE / "ready.json"
