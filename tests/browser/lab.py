"""JupyterLab on a free port, and headless Chromium to look at it."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Error, sync_playwright

# A kernel's GPU, news and updates are no part of the tests; a container's root has no sandbox.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# What JupyterLab would ask at first, with a dialog over the page: which kernel, and about news.
UNASKED = {
    "notebook-extension/tracker": {"autoStartDefaultKernel": True},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
NO_CHROMIUM = (
    "There is no Chromium. Install one (Debian: sudo apt install chromium; anywhere: "
    ".venv/bin/playwright install chromium) or name yours in CHROMIUM, then run it again."
)


@contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    """JupyterLab with `folder` as its root, and none of the user's settings; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    own = folder / ".jupyter"
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    settings = {name: str(own / name.lower()) for name in names}
    settings |= {f"JUPYTERLAB_{name}_DIR": str(own / name) for name in ("SETTINGS", "WORKSPACES")}
    for name, setting in UNASKED.items():
        path = own / f"SETTINGS/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))
    log = own / "pool.log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
            ],
            env=os.environ | settings, stdout=said, stderr=said,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/api?token={token}", server, log)
        yield f"{address}/lab/tree/{{}}?token={token}&reset"
    finally:
        server.terminate()  # which also ends its kernels
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers; show what it said if it never does."""
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless: the one named in CHROMIUM, one of this system, or Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        except Error as error:
            raise RuntimeError(NO_CHROMIUM) from error
        yield browser
        browser.close()
