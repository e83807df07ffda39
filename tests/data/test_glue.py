"""GLUE rows: local files, the hub (a small one served here), and what is said when neither gives them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from lora_xs.data import LOADERS, hub, load_rows
from lora_xs.data.glue import GLUE, REVISION
from lora_xs.errors import UserError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
COUNTS = {"cola": (8551, 1043), "sst2": (67349, 872), "mrpc": (3668, 408), "rte": (2490, 277), "stsb": (5749, 1500)}
WITHOUT_TRAIN = {"qnli": 5463, "mnli": 9815}

MRPC = [{"sentence1": f"one {i}", "sentence2": f"two {i}", "label": i % 2, "idx": i} for i in range(4)]


def write_task(root: Path, name: str, rows: list[dict], validation: list[dict]) -> Path:
    """JSONL files of a task as the local source wants them; gives the training file."""
    folder = root / "glue" / name
    folder.mkdir(parents=True, exist_ok=True)
    for split, chosen in (("train", rows), (GLUE[name].validation, validation)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    return folder / "train.jsonl"


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORA_XS_DATA", raising=False)


def test_a_local_pair_task_has_its_texts_labels_and_identity(tmp_path: Path) -> None:
    write_task(tmp_path, "mrpc", MRPC, MRPC[:2])
    rows = load_rows("glue/mrpc", root=tmp_path)
    assert rows.train[1] == {"text_a": "one 1", "text_b": "two 1", "label": 1}
    assert rows.labels == ("not_equivalent", "equivalent")
    identity = rows.identity
    assert identity["source"] == "local" and identity["rows"] == {"train": 4, "validation": 2}
    assert identity["label_counts"]["train"] == {"not_equivalent": 2, "equivalent": 2}
    assert set(identity["files"]) == {"mrpc/train.jsonl", "mrpc/validation.jsonl"}
    assert str(tmp_path) not in json.dumps(identity)


def test_stsb_is_a_regression_of_float32_and_integers_count_as_scores(tmp_path: Path) -> None:
    row = {"sentence1": "a", "sentence2": "b", "label": 5}
    write_task(tmp_path, "stsb", [row, row | {"label": 3.8}], [row])
    rows = load_rows("glue/stsb", root=tmp_path)
    assert rows.labels == ()
    assert rows.train.features["label"].dtype == "float32" and rows.train["label"][0] == 5.0
    assert "label_counts" not in rows.identity


def test_mnli_validates_on_the_matched_split(tmp_path: Path) -> None:
    row = {"premise": "p", "hypothesis": "h", "label": 2}
    write_task(tmp_path, "mnli", [row], [row])
    assert (tmp_path / "glue/mnli/validation_matched.jsonl").is_file()
    assert load_rows("glue/mnli", root=tmp_path).validation[0]["label"] == 2


def test_a_line_separator_inside_a_text_does_not_end_the_row(tmp_path: Path) -> None:
    path = write_task(tmp_path, "cola", [{"sentence": "x", "label": 0}], [{"sentence": "x", "label": 0}])
    path.write_bytes('{"sentence": "a\u2028b\u0085c", "label": 1}\r\n'.encode())
    assert load_rows("glue/cola", root=tmp_path).train["text_a"][:] == ["a\u2028b\u0085c"]


@pytest.mark.parametrize(
    ("task", "line", "said"),
    [
        ("mrpc", b'{"sentence2": "b", "label": 1}', "field 'sentence1' is missing"),
        ("mrpc", b'{"sentence1": null, "sentence2": "b", "label": 1}', "field 'sentence1' must be a text"),
        ("mrpc", b'{"sentence1": "a", "sentence2": "b"}', "field 'label' is missing"),
        ("mrpc", b'{"sentence1": "a", "sentence2": "b", "label": 2}', "field 'label' must be an integer 0 to 1, not 2"),
        ("mrpc", b'{"sentence1": "a", "sentence2": "b", "label": true}', "field 'label' must be an integer"),
        ("mrpc", b'{"sentence1": "a", "sentence2": "b", "label": 1.0}', "field 'label' must be an integer"),
        ("stsb", b'{"sentence1": "a", "sentence2": "b", "label": 5.1}', "field 'label' must be a number 0.0 to 5.0"),
        ("stsb", b'{"sentence1": "a", "sentence2": "b", "label": NaN}', "field 'label' must be a number 0.0 to 5.0"),
        ("mrpc", b'{"sentence1": "\\ud83d", "sentence2": "", "label": 1}', "field 'sentence1' has half a character"),
        ("mrpc", b'["a", "b", 1]', "a row must be a JSON object, not list"),
        ("mrpc", b'{"sentence1": "a",', "not JSON"),
        ("mrpc", b"", "not JSON"),
        ("mrpc", b'{"sentence1": "\xff"}', "not UTF-8 (byte 15 of the line)"),
    ],
)
def test_a_malformed_row_is_named_by_file_line_and_field(tmp_path: Path, task: str, line: bytes, said: str) -> None:
    good = {"sentence1": "a", "sentence2": "b", "label": 1}
    path = write_task(tmp_path, task, [good], [good])
    path.write_bytes(path.read_bytes() + line + b"\n" + path.read_bytes())
    with pytest.raises(UserError) as raised:
        load_rows(f"glue/{task}", root=tmp_path)
    assert str(raised.value).startswith(f"{path}:2: {said}")
    assert "\n" not in str(raised.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = write_task(tmp_path, "mrpc", [], MRPC)
    with pytest.raises(UserError, match=f"{path}:1: no rows"):
        load_rows("glue/mrpc", root=tmp_path)


def test_a_missing_file_is_named_with_the_ways_to_provide_it(tmp_path: Path) -> None:
    path = write_task(tmp_path, "qnli", [], [])
    path.unlink()
    with pytest.raises(UserError) as raised:
        load_rows("glue/qnli", root=tmp_path)
    message = str(raised.value)
    assert str(path) in message and "\n" not in message
    assert all(way in message for way in ("data.source=hub", "data.root=<folder>", "LORA_XS_DATA", "task=reviews"))


def test_an_unknown_task_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"glue/wnli.*glue/cola.*reviews_score"):
        load_rows("glue/wnli")
    assert {f"glue/{name}" for name in GLUE} < set(LOADERS)


# --- the hub ---------------------------------------------------------------------------------------------------------

COMMIT = "b" * 40  # what the served hub says its main branch is


class SmallHub(BaseHTTPRequestHandler):
    """Answers for two Parquet files of MRPC at the pinned commit and at `main`."""

    requests: list[str]
    body: bytes

    def do_HEAD(self) -> None:
        self.requests.append(self.path)
        revision = next(
            (r for r in (REVISION, COMMIT, "main") if f"/nyu-mll/glue/resolve/{r}/mrpc/" in self.path), None
        )
        self.send_response(200 if revision or self.path == "/" else 404)
        self.send_header("X-Repo-Commit", COMMIT if revision == "main" else revision or "")
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def small_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SmallHub]]:
    pq.write_table(pa.Table.from_pylist(MRPC), tmp_path / "rows.parquet")
    handler = type("Handler", (SmallHub,), {"requests": [], "body": (tmp_path / "rows.parquet").read_bytes()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_hub(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


def point_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.utils.close_session()


def test_hub_rows_equal_local_rows_and_record_the_pinned_commit(tmp_path: Path, small_hub: type[SmallHub]) -> None:
    rows = load_rows("glue/mrpc")
    assert rows.identity["repo"] == "nyu-mll/glue" and rows.identity["revision"] == REVISION
    assert set(rows.identity["files"]) == {f"mrpc/{s}-00000-of-00001.parquet" for s in ("train", "validation")}
    write_task(tmp_path, "mrpc", MRPC, MRPC)
    assert load_rows("glue/mrpc", root=tmp_path).identity["content"] == rows.identity["content"]


class ClientError(Exception):
    """As an HTTP client's own errors: of no class that the hub's library or Python has."""


def test_a_folder_of_other_tasks_does_not_hide_the_hub(tmp_path: Path, small_hub: type[SmallHub]) -> None:
    write_task(tmp_path, "cola", [{"sentence": "x", "label": 0}], [{"sentence": "x", "label": 0}])
    assert load_rows("glue/mrpc", root=tmp_path).identity["source"] == "hub"
    with pytest.raises(UserError, match=r"no file .*glue/mrpc/train.jsonl"):
        load_rows("glue/mrpc", root=tmp_path, source="local")


def test_both_splits_are_of_the_commit_a_branch_first_stood_for(small_hub: type[SmallHub]) -> None:
    load_rows("glue/mrpc", revision="main")
    asked = [path for path in small_hub.requests if "validation-" in path]
    assert asked and all(f"/resolve/{COMMIT}/" in path for path in asked)


@pytest.mark.parametrize("error", [ClientError("no route"), OSError("full")])
def test_whatever_the_client_raises_on_a_flaky_network_is_the_hubs_not_giving_the_file(
    small_hub: type[SmallHub], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    with pytest.raises(UserError, match=rf"was not given by the hub \({type(error).__name__}\)"):
        load_rows("glue/mrpc")


def test_a_cached_commit_needs_no_request(small_hub: type[SmallHub], monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_rows("glue/mrpc").identity
    small_hub.requests.clear()
    assert load_rows("glue/mrpc").identity == first and small_hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_rows("glue/mrpc").identity == first


def test_a_branch_is_resolved_to_its_commit_and_taken_from_the_cache_without_a_hub(
    tmp_path: Path, small_hub: type[SmallHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_rows("glue/mrpc", revision="main").identity["revision"] == COMMIT
    point_hub(monkeypatch, tmp_path, "http://127.0.0.1:9")
    assert load_rows("glue/mrpc", revision="main").identity["revision"] == COMMIT


def test_a_task_the_hub_does_not_give_is_the_users_to_provide(small_hub: type[SmallHub]) -> None:
    with pytest.raises(UserError, match="was not given by the hub"):
        load_rows("glue/cola")


@pytest.mark.parametrize("offline", [True, False])
def test_without_network_and_cache_nothing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    point_hub(monkeypatch, tmp_path, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)

    def retries(*_: object, **__: object) -> None:
        raise AssertionError("hf_hub_download retries for 23 seconds and must not be reached")

    monkeypatch.setattr(hub, "hf_hub_download", retries)
    with pytest.raises(UserError) as raised:
        load_rows("glue/mrpc")
    message = str(raised.value)
    assert ("HF_HUB_OFFLINE is set" if offline else "http://127.0.0.1:9 does not answer") in message
    assert "mrpc/train-00000-of-00001.parquet" in message and "ways to provide it" in message and "\n" not in message


# --- the real files --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "glue").is_dir(), reason="the shared data folder is not there")
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_files_have_their_published_row_counts(name: str) -> None:
    rows = load_rows(f"glue/{name}", root=SHARED)
    assert (len(rows.train), len(rows.validation)) == COUNTS[name]
    assert ("text_b" in rows.train.column_names) == (len(GLUE[name].fields) == 2)


@pytest.mark.skipif(not (SHARED / "glue").is_dir(), reason="the shared data folder is not there")
@pytest.mark.parametrize("name", WITHOUT_TRAIN)
def test_the_real_validation_files_load_and_their_missing_train_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"glue/{name}/train.jsonl"):
        load_rows(f"glue/{name}", root=SHARED)
    folder = tmp_path / "glue" / name
    folder.mkdir(parents=True)
    real = (SHARED / "glue" / name / f"{GLUE[name].validation}.jsonl").read_bytes()
    (folder / f"{GLUE[name].validation}.jsonl").write_bytes(real)
    (folder / "train.jsonl").write_bytes(real[: real.index(b"\n") + 1])
    assert len(load_rows(f"glue/{name}", root=tmp_path).validation) == WITHOUT_TRAIN[name]
