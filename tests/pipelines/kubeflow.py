"""A stand-in of Kubeflow Pipelines' REST API (v2beta1): as much of it as `grocer submit` uses.

Steps come as the server of 2.17 was seen to give them: one for each of Argo's nodes, retries and
drivers too, in no order, all created when the run was; with the id of the node below and neither a
message nor a pod; and notes of the launcher's without a name or a state. Logs are kept by the
node's id, for steps that have ended.
"""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import yaml

API = "/apis/v2beta1"
DAY = "2026-01-01T00:01:"
TASK = {"run_id": "run", "create_time": "2026-01-01T00:00:00Z"}


class Kubeflow(ThreadingHTTPServer):
    """Keeps what it is given.

    `script` has a run's state and its steps', poll by poll: pairs of a name and a state, or a
    mapping. `logs` has what steps printed, by their name; a second one of a name is `name 2`.
    """

    def __init__(self, script=(), token=None, logs=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.script, self.token = list(script), token
        self.pipelines, self.versions, self.experiments = {}, {}, {}
        self.runs, self.schedules, self.texts = {}, {}, {}
        self.logs = logs or {}
        self.failing = 0
        self.told, self.history = {}, []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def do_DELETE(self):
        self.answer("DELETE")

    def answer(self, method):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.server.token and self.headers["authorization"] != f"Bearer {self.server.token}":
            return self.reply({"message": "no token"}, 401)
        url = urlparse(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        for verb, pattern, handle in ROUTES:
            match = re.fullmatch(API + pattern, url.path)
            if match and verb == method:
                return self.reply(*handle(self.server, query, body, *match.groups()))
        return self.reply({"message": f"no such thing: {method} {url.path}"}, 404)

    def reply(self, value, status=200):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def listed(kept, query, key):
    """Those that the filter names, as every list of the API."""
    wanted = None
    if "filter" in query:
        (predicate,) = json.loads(query["filter"])["predicates"]
        assert predicate["operation"] in (1, "EQUALS")
        assert predicate["key"] == "display_name"
        wanted = predicate.get("stringValue", predicate.get("string_value"))
    return ({key: [each for each in kept.values() if wanted in (None, each["display_name"])]},)


def kept(store, identity, value):
    value[identity] = f"{identity}-{len(store) + 1}"
    store[value[identity]] = value
    return (value,)


def pipeline_in(body):
    """The YAML documents of an uploaded file."""
    assert b"sdkVersion: kfp-2.17" in body
    _, _, rest = body.partition(b"\r\n\r\n")
    return list(yaml.safe_load_all(rest.rpartition(b"\r\n--")[0]))


def upload(server, query, body):
    pipeline_in(body)
    (pipeline,) = kept(server.pipelines, "pipeline_id", {"display_name": query["name"]})
    # As the real one: a new pipeline begins with a version of its own name.
    version = {"display_name": query["name"], "pipeline_id": pipeline["pipeline_id"]}
    kept(server.versions, "pipeline_version_id", version)
    return (pipeline,)


def upload_version(server, query, body):
    server.texts[query["name"]] = pipeline_in(body)
    version = {"display_name": query["name"], "pipeline_id": query["pipelineid"]}
    return kept(server.versions, "pipeline_version_id", version)


def get_run(server, query, body, run_id):
    if server.failing:
        server.failing -= 1
        return {"message": "away for a while"}, 503
    state, steps = server.script.pop(0) if len(server.script) > 1 else server.script[0]
    # The run's end is told a moment before those of its steps; one that was canceled ends FAILED.
    ends = state not in ("PENDING", "RUNNING") and state not in server.history
    server.history.append(state)
    server.told, steps = steps, server.told if ends else steps
    history = [{"state": each} for each in dict.fromkeys(server.history)]
    pairs = list(steps.items() if isinstance(steps, dict) else steps)
    details = [{**TASK, "task_id": "note", "start_time": f"{DAY}00Z", "end_time": f"{DAY}09Z"}]
    for n, (step, each) in enumerate(pairs):
        times = sum(name == step for name, _ in pairs[: n + 1])
        node = (step if times == 1 else f"{step} {times}").replace(" ", "-")
        first = [name for name, _ in pairs].index(step)  # what loops begins in one second
        seen = {
            **TASK,
            "state": each,
            "start_time": f"{DAY}{first:02}Z",
            "end_time": "0001-01-01T00:00:00Z",
        }
        if each not in ("PENDING", "RUNNING"):
            seen["end_time"] = f"2026-01-01T00:02:{15 + first:02}Z"
        below = [{"pod_name": node}]
        details.append({**seen, "task_id": node, "display_name": step, "child_tasks": below})
        details.append({**seen, "task_id": f"{node}-0", "display_name": f"{step}(0)"})
    if len(server.script) % 2:  # the server's order tells nothing
        details.reverse()
    run = {"run_id": run_id, "state": state, "state_history": history}
    return ({**run, "run_details": {"task_details": details}},)


def read_log(server, query, body, run_id, node):
    for name, text in server.logs.items():
        if name.replace(" ", "-") == node:
            return ({"data": base64.b64encode(text.encode()).decode()},)
    return {"error_message": "artifact not found"}, 404


def delete_schedule(server, query, body, identity):
    del server.schedules[identity]
    return ({},)


ROUTES = [
    ("GET", "/healthz", lambda server, query, body: ({"multi_user": False},)),
    ("GET", "/pipelines", lambda s, q, b: listed(s.pipelines, q, "pipelines")),
    ("POST", "/pipelines/upload", upload),
    ("POST", "/pipelines/upload_version", upload_version),
    (
        "GET",
        "/pipelines/([^/]+)/versions",
        lambda s, q, b, pipeline: listed(s.versions, q, "pipeline_versions"),
    ),
    ("GET", "/experiments", lambda s, q, b: listed(s.experiments, q, "experiments")),
    (
        "POST",
        "/experiments",
        lambda s, q, b: kept(s.experiments, "experiment_id", json.loads(b)),
    ),
    ("POST", "/runs", lambda s, q, b: kept(s.runs, "run_id", json.loads(b))),
    ("GET", "/runs/([^/]+)", get_run),
    ("GET", "/runs/([^/]+)/nodes/([^/]+)/artifacts/main-logs:read", read_log),
    ("GET", "/recurringruns", lambda s, q, b: listed(s.schedules, q, "recurringRuns")),
    (
        "POST",
        "/recurringruns",
        lambda s, q, b: kept(s.schedules, "recurring_run_id", json.loads(b)),
    ),
    ("DELETE", "/recurringruns/([^/]+)", delete_schedule),
]
