"""A stand-in for wandb's server on 127.0.0.1: it answers what the client asks and keeps what it sends."""

from __future__ import annotations

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef" * 3  # any of forty characters or more


class StandIn(ThreadingHTTPServer):
    """Context manager. runs: by id; `rows` is the history, `config`, `summary`, `group`, `name`, `exit` as sent last.
    requests: how many came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.requests = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that closes its connection is none of the test's business."""

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL operation."""
        if operation == "RunResumeStatus":
            project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
            return {"model": {**project, "bucket": self._status(given["name"])}}
        if operation == "UpsertBucket":
            return {"upsertBucket": self._upsert(given)}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/up/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "stored", "uploadHeaders": [], "files": files}}
        if operation == "Viewer":
            teams = {"edges": []}
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "email": "", "teams": teams}}
        return {"serverInfo": {"features": []}} if operation.startswith("ServerFeatures") else {}

    def _status(self, run_id: str) -> dict[str, Any] | None:
        run = self.runs.get(run_id)
        if run is None:
            return None
        counts = {"historyLineCount": len(run["rows"]), "logLineCount": 0, "eventsLineCount": 0}
        tails = {"historyTail": json.dumps([json.dumps(row) for row in run["rows"][-1:]]), "eventsTail": "[]"}
        stored = {"summaryMetrics": json.dumps(run["summary"]), "config": json.dumps(run["config"])}
        told = {"id": "stored", "name": run_id, "displayName": run["name"], "tags": [], "wandbConfig": '{"t": 1}'}
        return {**told, **counts, **tails, **stored}

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        fresh = {"rows": [], "summary": {}, "config": {}, "group": None, "name": None, "exit": None, "preempted": False}
        run = self.runs.setdefault(given["name"], fresh)
        run["config"] = json.loads(given["config"]) if given.get("config") else run["config"]
        run["group"] = given.get("groupName") or run["group"]
        run["name"] = given.get("displayName") or run["name"]
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
        bucket = {
            "id": "stored",
            "name": given["name"],
            "displayName": run["name"],
            "config": json.dumps(run["config"]),
        }
        return {
            "bucket": {**bucket, "historyLineCount": len(run["rows"]), "project": project},
            "inserted": run is fresh,
        }

    def stream(self, run_id: str, sent: dict[str, Any]) -> None:
        """Lines of a run's files, each list from an offset on."""
        run = self.runs[run_id]
        for name, part in (sent.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]] if name.endswith(("l", "n")) else []
            if name == "wandb-history.jsonl":
                run["rows"][part["offset"] : part["offset"] + len(lines)] = lines
            elif name == "wandb-summary.json":
                run["summary"] = lines[-1]
        run["preempted"] |= bool(sent.get("preempting"))
        if sent.get("complete"):
            run["exit"] = sent["exitcode"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, *_: Any) -> None:
        """Not on the tests' output."""

    def do_POST(self) -> None:
        self.server.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            answer = {"data": self.server.answer(named[1] if named else "", asked.get("variables") or {})}
        elif streamed := re.fullmatch(r"/files/[^/]*/[^/]*/([^/]*)/file_stream", self.path):
            self.server.stream(streamed[1], json.loads(body))
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_GET = do_POST
