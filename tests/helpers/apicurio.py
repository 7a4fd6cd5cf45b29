"""A real Apicurio registry on this machine, from Maven, and a proxy before it that asks for user and password."""

import base64
import os
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from state.ports import free_port

VERSION = "2.6.13.Final"  # the newest that runs on Java 17
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
API = "/apis/ccompat/v7"


def unpacked():
    """Return the folder of the registry's jars, fetched once."""
    default = os.environ.get("HEADRACE_TEST_CACHE") or Path.home() / ".cache" / "headrace-tests"
    folder = Path(default) / f"apicurio-{VERSION}"
    if not folder.exists():
        maven = shutil.which("mvn")
        assert maven, "no Maven: `make packages` installs it"
        folder.parent.mkdir(parents=True, exist_ok=True)
        fetched = folder.parent / f"apicurio-fetched-{os.getpid()}"
        commands = [
            [f"{PLUGIN}:get", f"-Dartifact={ARTIFACT}", "-Dtransitive=false"],
            [f"{PLUGIN}:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={fetched}"],
        ]
        for command in commands:
            done = subprocess.run([maven, "-q", "-B", "-ntp", *command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"Maven cannot fetch Apicurio: {(done.stdout + done.stderr).strip()[-300:]}"
        (archive,) = fetched.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(fetched / "jars")
        (fetched / "jars").rename(folder)
        shutil.rmtree(fetched)
    return folder


class Apicurio:
    """The registry as a process; `url` leads through a proxy that wants `key:secret`."""

    def __init__(self, folder):
        self.port, self._folder, self._process = free_port(), folder, None
        registry = self
        wanted = "Basic " + base64.b64encode(b"key:secret").decode()

        class Proxy(BaseHTTPRequestHandler):
            def pass_on(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, kind, answer = 401, "application/json", b'{"error_code": 40101, "message": "Unauthorized"}'
                if self.headers.get("Authorization") == wanted:
                    own = {"Content-Type": self.headers.get("Content-Type", "application/json")}
                    try:
                        found = httpx.request(self.command, f"http://127.0.0.1:{registry.port}{self.path}",
                                              content=body, headers=own, timeout=20)  # fmt: skip
                        status, kind, answer = found.status_code, found.headers["Content-Type"], found.content
                    except httpx.HTTPError:
                        status, answer = 502, b'{"error_code": 50201, "message": "Bad Gateway"}'
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = pass_on

            def log_message(self, *args):
                pass

        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        self._proxy.daemon_threads = True
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        self.url = f"http://key:secret@127.0.0.1:{self._proxy.server_port}{API}"

    def start(self):
        (jar,) = unpacked().glob("*-runner.jar")
        command = [
            "java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self.port}", "-jar", str(jar),
        ]  # fmt: skip
        with (self._folder / "apicurio.log").open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, cwd=self._folder)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}{API}/subjects", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert self._process.poll() is None, (self._folder / "apicurio.log").read_text()[-1500:]
            time.sleep(0.2)
        raise AssertionError("Apicurio did not answer in time")

    def send(self, number):
        self._process.send_signal(number)

    def kill(self):
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def close(self):
        self.kill()
        self._proxy.shutdown()
        self._proxy.server_close()
