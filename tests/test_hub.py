"""Models on the Hugging Face Hub, against a server on loopback that answers as the Hub does."""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from mien import cli, weights
from mien.errors import CheckpointError, InputError, MienError, OutputError
from mien.model_info import DIGEST_KEY, METADATA_KEY, NO_DIGEST, ModelInfo, write_digest
from mien.predict.backend import open_backend
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Recognizer
from mien.weights import hub

huggingface_hub = pytest.importorskip("huggingface_hub")
from huggingface_hub import ModelCard, constants  # noqa: E402

FACES = list(np.random.default_rng(1).integers(0, 256, (5, 48, 48), dtype=np.uint8))
TOKEN = "hf_of_the_writer"


class FakeHub(ThreadingHTTPServer):
    """The endpoints of the Hub that mien uses. As on the Hub, `.onnx` files are stored by LFS and served after a redirect."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.store = f"http://localhost:{self.server_port}/lfs"  # another host, as the Hub's storage is
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}  # files by repository and revision, oldest first; last is main
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.agents: set[str] = set()
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a commit with more files, and return its revision."""
        commits = self.repos.setdefault(repo, {})
        revision = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[revision] = (list(commits.values())[-1] if commits else {}) | files
        return revision

    def stop(self) -> None:
        huggingface_hub.close_session()  # and with it, the connections that wait for another request
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, content: bytes | dict[str, object] = b"", **headers: object) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.may_write = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.server.requests.append((self.command, self.path))
        self.server.agents.add(self.headers.get("User-Agent", ""))
        for pattern, method, action in ROUTES:
            if (found := re.fullmatch(pattern, self.path)) and self.command in method:
                return action(self, *found.groups())
        self.answer(500, f"the fake hub knows no {self.command} {self.path}".encode())

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def files(self, repo: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit and the files of a revision, or answer that there is none."""
        commits = self.server.repos.get(repo)
        if commits is None or (repo in self.server.private and not self.may_write):
            return self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Invalid username or password.")
        commit = list(commits or [""])[-1] if revision in (None, "main") else str(revision)
        if commit and commit not in commits:
            return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        return commit, commits.get(commit, {})  # a new repository has no file

    def info(self, repo: str, revision: str | None) -> None:
        if found := self.files(repo, revision):
            siblings = [{"rfilename": name} for name in found[1]]
            self.answer(200, {"id": repo, "sha": found[0], "private": repo in self.server.private, "siblings": siblings})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        if not (found := self.files(repo, revision)):
            return
        commit, content = found[0], found[1][name]
        if name.endswith(".onnx"):
            oid = hashlib.sha256(content).hexdigest()
            self.server.objects[oid] = content
            linked = {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": len(content)}
            return self.answer(302, X_Repo_Commit=commit, Location=f"{self.server.store}/{oid}", **linked)
        self.answer(200, content, X_Repo_Commit=commit, ETag=f'"{hashlib.sha1(content).hexdigest()}"')

    def stored(self, oid: str) -> None:
        if self.command == "PUT":
            self.server.objects[oid] = self.body
        self.answer(200, self.server.objects[oid], ETag=f'"{oid}"')

    def create(self) -> None:
        wanted = json.loads(self.body)
        repo = f"{wanted['organization']}/{wanted['name']}"
        if not self.may_write:
            return self.answer(401, {"error": "Invalid username or password."})
        if repo in self.server.repos:
            return self.answer(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{repo}"})
        self.server.repos[repo] = {}
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.server.private.add(repo)
        self.answer(200, {"url": f"{self.server.url}/{repo}"})

    def validate(self) -> None:
        card = ModelCard(json.loads(self.body)["content"])  # raises if Hugging Face cannot read it
        self.answer(200, {"errors": [], "warnings": [], "library": card.data.library_name})

    def preupload(self, repo: str) -> None:
        names = [each["path"] for each in json.loads(self.body)["files"]]
        modes = {name: "lfs" if name.endswith(".onnx") else "regular" for name in names}
        self.answer(200, {"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})

    def batch(self, repo: str) -> None:
        objects = json.loads(self.body)["objects"]
        for each in objects:
            each["actions"] = {"upload": {"href": f"{self.server.store}/{each['oid']}"}}
        self.answer(200, {"transfer": "basic", "objects": objects})

    def changed(self, repo: str) -> None:
        files = {}
        for line in map(json.loads, self.body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.server.objects[line["value"]["oid"]]
        commit = self.server.commit(repo, files)
        self.answer(200, {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{repo}/commit/{commit}"})


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    (r"/api/repos/create", "POST", _Handler.create),
    (r"/api/validate-yaml", "POST", _Handler.validate),
    (rf"/api/models/{REPO}(?:/revision/(\w+))?", "GET", _Handler.info),
    (rf"/api/models/{REPO}/preupload/main", "POST", _Handler.preupload),
    (rf"/api/models/{REPO}/commit/main", "POST", _Handler.changed),
    (rf"/{REPO}\.git/info/lfs/objects/batch", "POST", _Handler.batch),
    (rf"/{REPO}/resolve/(\w+)/(.+)", "GET HEAD", _Handler.resolve),
    (r"/lfs/(\w+)", "GET HEAD PUT", _Handler.stored),
]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub without models, and an empty cache; the user is not logged in."""
    server = FakeHub()
    changes = {"ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}"}
    changes |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_TOKEN_PATH": str(tmp_path / "token")}
    for name, value in (changes | {"HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}).items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MIEN_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    huggingface_hub.close_session()  # whose proxy settings are those of an earlier test
    yield server
    server.stop()


@pytest.fixture
def login(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log in as the user who may write."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def mien(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mien", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def rewritten(path: Path, out: Path, metadata: str | None) -> Path:
    """Write an `.onnx` file with other metadata of mien, or with none."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {} if metadata is None else {METADATA_KEY: metadata, DIGEST_KEY: NO_DIGEST})
    onnx.save(model, out)
    if metadata is not None:
        write_digest(out)
    return out


@pytest.mark.slow
@pytest.mark.usefixtures("login")
def test_a_run_is_pushed_and_answers_from_the_hub_and_then_from_the_cache(
    server: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_info: ModelInfo,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("torch")
    from mien.checkpoint import save_checkpoint
    from mien.engine.torch_backend import TorchBackend
    from mien.models import create_model
    from mien.recipe import load_recipe
    from mien.transfer import start_file

    recipe = load_recipe("dlib_resnet/fer2013")
    arguments = {"in_channels": 1}
    info = replace(tiny_info, arch="vanilla_cnn", arguments=arguments, recipe=recipe.to_dict())
    save_checkpoint(
        tmp_path / "run/best.safetensors", create_model("vanilla_cnn", num_classes=7, **arguments).state_dict(), info
    )
    local = Recognizer(TorchBackend(tmp_path / "run"), detector=None).probabilities(FACES)

    assert mien(monkeypatch, "push", tmp_path / "run", "user/my-faces") == 0
    (commit, files), (printed, _) = *server.repos["user/my-faces"].items(), capsys.readouterr()
    assert f"uploaded hf://user/my-faces@{commit}; use it with" in printed
    assert set(files) == {"my-faces.onnx", "my-faces.json", "README.md", "recipe.yaml"}
    assert 'Recognizer("hf://user/my-faces")' in files["README.md"].decode()
    assert "`my-faces.onnx`" in files["README.md"].decode()
    (tmp_path / "recipe.yaml").write_bytes(files["recipe.yaml"])
    assert load_recipe(tmp_path / "recipe.yaml").to_dict() == recipe.to_dict()
    assert not server.private

    np.testing.assert_allclose(Recognizer("hf://user/my-faces", detector=None).probabilities(FACES), local, atol=1e-4)
    path = weights.resolve("hf://user/my-faces")
    assert start_file("hf://user/my-faces") == path
    assert path.read_bytes() == files["my-faces.onnx"]
    assert weights.read_card(path)["sha256"] == weights.sha256(path)
    assert any(agent.startswith("mien/") for agent in server.agents)
    assert not any("torch/" in agent for agent in server.agents)
    assert constants.HF_HUB_DISABLE_TELEMETRY is False

    before = len(server.requests)
    assert weights.resolve(f"hf://user/my-faces@{commit}") == path
    assert len(server.requests) == before
    server.stop()
    assert not [record for record in caplog.records if record.name == "mien"]
    np.testing.assert_allclose(Recognizer("hf://user/my-faces", detector=None).probabilities(FACES), local, atol=1e-4)
    assert "the Hub cannot be reached" in caplog.text
    assert commit in caplog.text


@pytest.mark.usefixtures("login")
def test_a_file_is_pushed_as_private_and_replaced_by_another_push(
    server: FakeHub,
    tiny_onnx: Path,
    tiny_info: ModelInfo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert mien(monkeypatch, "push", tiny_onnx, "user/faces", "--private") == 0
    assert server.private == {"user/faces"}
    assert set(list(server.repos["user/faces"].values())[-1]) == {"faces.onnx", "README.md"}  # no recipe, no card
    other = rewritten(tiny_onnx, tmp_path / "other.onnx", replace(tiny_info, commit="1234").to_json())
    address = hub.push(other, OnnxBackend(other).info, "user/faces")
    assert weights.resolve("hf://user/faces").read_bytes() == other.read_bytes()
    assert weights.resolve(address).read_bytes() == other.read_bytes()
    server.private.clear()
    with pytest.raises(OutputError, match="is public"):
        hub.push(other, OnnxBackend(other).info, "user/faces", private=True)
    server.private.add("user/faces")
    (first, second) = server.repos["user/faces"]
    assert address.endswith(second)
    assert weights.resolve(f"hf://user/faces@{first}").read_bytes() == tiny_onnx.read_bytes()
    monkeypatch.delenv("HF_TOKEN")
    huggingface_hub.close_session()
    with pytest.raises(CheckpointError, match="no such model on the Hub, or it is private"):  # the cache does not help
        weights.resolve("hf://user/faces")
    capsys.readouterr()
    assert mien(monkeypatch, "push", tiny_onnx, "user/else") == 2
    assert "Invalid username or password.); log in with" in capsys.readouterr().err


def test_a_repository_is_named_by_user_and_model(server: FakeHub, tiny_onnx: Path, tiny_info: ModelInfo) -> None:
    for name in ("faces", "user/faces/more", "user/faces@main"):
        with pytest.raises(InputError, match="write user/model"):
            hub.push(tiny_onnx, tiny_info, name)
    server.stop()
    with pytest.raises(OutputError, match=r"cannot be uploaded \(.*refused\); try again"):
        hub.push(tiny_onnx, tiny_info, "user/faces")


def test_commands_take_an_address(
    server: FakeHub, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.commit("user/faces", {"faces.onnx": tiny_onnx.read_bytes()})
    Image.fromarray(FACES[0]).save(tmp_path / "face.png")
    assert mien(monkeypatch, "info", "hf://user/faces", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == weights.sha256(tiny_onnx)
    assert mien(monkeypatch, "predict", tmp_path / "face.png", "--no-detect", "--model", "hf://user/faces@main", "--jsonl") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["label"] == Recognizer(tiny_onnx, detector=None).predict(FACES[0])[0].label


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://faces", "write hf://user/model"),
        ("hf://user/none", "no such model on the Hub"),
        ("hf://user/none--such", "none--such"),
        ("hf://user/two@nowhere", "no revision nowhere"),
        ("hf://user/two", "has 2 .onnx files; name one, as in hf://user/two/a.onnx"),
        ("hf://user/two/c.onnx", "no such file; its .onnx files: a.onnx, b.onnx"),
        ("hf://user/two/model.bin", "loads only .onnx files"),
        ("hf://user/pickles", "only pytorch_model.bin, last.ckpt, which mien does not load because a pickle"),
        ("hf://user/empty", "has no .onnx file; its author"),
        ("hf://user/foreign", "hf://user/foreign: .*no mien metadata"),
        ("hf://user/damaged", "hf://user/damaged: .*is corrupt .*delete .*models--user--damaged$"),
        ("hf://user/carded", "hf://user/carded: .*card carded.json describes .*sha256"),
    ],
)
def test_what_cannot_be_loaded_says_why(server: FakeHub, tiny_onnx: Path, tmp_path: Path, address: str, message: str) -> None:
    model = tiny_onnx.read_bytes()
    server.commit("user/two", {"a.onnx": model, "b.onnx": model, "model.bin": b""})
    server.commit("user/pickles", {"pytorch_model.bin": b"", "last.ckpt": b""})
    server.commit("user/empty", {"README.md": b""})
    server.commit("user/foreign", {"model.onnx": rewritten(tiny_onnx, tmp_path / "foreign.onnx", None).read_bytes()})
    server.commit("user/damaged", {"model.onnx": model.replace(b"linear", b"linear"[::-1])})
    server.commit("user/carded", {"carded.onnx": model, "carded.json": b'{"sha256": "0"}'})
    with pytest.raises(MienError, match=message):
        open_backend(address)
    assert not any(path.endswith((".bin", ".ckpt")) for _, path in server.requests)


def test_without_a_network_only_the_cache_answers(
    server: FakeHub, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit = server.commit("user/two", {"a.onnx": tiny_onnx.read_bytes(), "b.onnx": b"b"})
    path = weights.resolve(f"hf://user/two@{commit}/a.onnx")
    with pytest.raises(CheckpointError, match="is damaged"):  # the other file of that commit is still asked for
        open_backend(f"hf://user/two@{commit}/b.onnx")
    assert weights.resolve("hf://user/two/a.onnx") == path
    server.requests.clear()
    monkeypatch.setenv("MIEN_OFFLINE", "1")
    assert weights.resolve("hf://user/two/a.onnx") == path
    with pytest.raises(CheckpointError, match="unset MIEN_OFFLINE"):
        weights.resolve("hf://user/other")
    assert not server.requests
    monkeypatch.delenv("MIEN_OFFLINE")
    server.stop()
    with pytest.raises(CheckpointError, match=r"cannot be downloaded and is not in the cache \(.*refused\)"):
        weights.resolve("hf://user/other")
    assert not [record for record in caplog.records if record.name == "mien"]
