"""A server that speaks Confluent's registry interface over real HTTP, kind and unkind."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Registry:
    """Subjects and ids as Confluent's registry has them; `credentials` are asked for, `hang_s` delays each answer."""

    def __init__(self, credentials=None):
        self.schemas, self.subjects, self.asked = {}, {}, []
        self.credentials, self.hang_s, self.status = credentials, 0.0, None
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, code, body):
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def allowed(self):
                registry.asked.append((self.command, self.path))
                time.sleep(registry.hang_s)
                wanted = registry.credentials and "Basic " + base64.b64encode(registry.credentials.encode()).decode()
                if registry.status or (wanted and self.headers.get("Authorization") != wanted):
                    self.answer(registry.status or 401, {"error_code": registry.status or 40101, "message": "no"})
                    return False
                return True

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.allowed():
                    return
                subject = self.path.split("?")[0].split("/")[2]
                held = registry.subjects.get(subject, {})
                if self.path.split("?")[0].endswith("/versions"):
                    self.answer(200, {"id": registry.add(subject, body)})
                elif body["schema"] in held:
                    self.answer(200, {"subject": subject, "id": held[body["schema"]], "version": 1, **body})
                else:
                    self.answer(404, {"error_code": 40401, "message": "subject not found"})

            def do_GET(self):
                if not self.allowed():
                    return
                parts = self.path.split("?")[0].split("/")
                if parts[1] == "subjects":
                    (text, schema_id), *_ = registry.subjects[parts[2]].items()
                    self.answer(200, {"subject": parts[2], "id": schema_id, "version": 1, "schema": text})
                    return
                found = registry.schemas.get(int(parts[3]))
                self.answer(200, found) if found else self.answer(404, {"error_code": 40403, "message": "not found"})

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{credentials + '@' if credentials else ''}{self.host}"

    def add(self, subject, body):
        schema_id = len(self.schemas) + 1
        self.schemas[schema_id] = body
        self.subjects.setdefault(subject, {})[body["schema"]] = schema_id
        return schema_id

    def close(self):
        self.server.shutdown()
        self.server.server_close()
