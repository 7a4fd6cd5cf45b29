"""An S3 server for tests: moto's, as a process of its own on loopback."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import s3fs

from state.ports import free_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "not-to-be-shown",
    "AWS_DEFAULT_REGION": "us-east-1",
}
BUCKET = "shop"


class S3Server:
    """Serves one bucket until the block ends; what it holds lives as long as the process."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.address = f"s3://{BUCKET}/anchors"

    def __enter__(self) -> "S3Server":
        server = Path(sys.executable).with_name("moto_server")
        command = [str(server), "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert self._process.poll() is None, "moto_server ended"
                assert time.monotonic() < deadline, "moto_server did not start in time"
                time.sleep(0.1)
        os.environ.update(CREDENTIALS)
        self.files = s3fs.S3FileSystem(endpoint_url=self.url, use_listings_cache=False, skip_instance_cache=True)
        self.files.mkdir(BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        for name in CREDENTIALS:
            os.environ.pop(name, None)
        self._process.kill()
        self._process.wait()

    def names(self) -> list[str]:
        """Return the paths of all objects below the address."""
        self.files.invalidate_cache()
        top = self.address.removeprefix("s3://")
        return sorted(path.removeprefix(top + "/") for path in self.files.find(top)) if self.files.exists(top) else []
