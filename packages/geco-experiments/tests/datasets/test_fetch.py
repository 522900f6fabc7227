import functools
import hashlib
import http.server
import threading

import pytest

from geco_experiments import registry
from geco_experiments.datasets import DatasetSpec, needs, spec_of
from geco_experiments.datasets import fetch as fetching
from geco_experiments.datasets.fetch import fetch
from geco_experiments.datasets.sources import Source
from geco_experiments.runtime.errors import DataError, RunError

CONTENT = b"sixty thousand digits" * 1000


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


class Cut(Quiet):
    """Promises everything and sends half."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2])


@pytest.fixture
def serve(tmp_path):
    """Serves a folder over HTTP on this machine; returns its address."""
    servers = []

    def start(handler=Quiet):
        folder = tmp_path / "served"
        folder.mkdir(exist_ok=True)
        (folder / "file.gz").write_bytes(CONTENT)
        handler = functools.partial(handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/file.gz"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def source(monkeypatch):
    """Registers a dataset of one file."""

    def register(*urls, digest=None):
        digest = digest or hashlib.sha256(CONTENT).hexdigest()
        entry = Source("TOY/raw/file.gz", digest, urls)
        spec = DatasetSpec(load=lambda config, home: None, downloads=(entry,))
        monkeypatch.setattr(fetching, "spec_of", {"toy": spec}.__getitem__)

    return register


def test_fetches_checks_and_does_not_fetch_again(home, serve, source):
    source(serve())
    said = []
    (path,) = fetch("toy", home, say=said.append)
    assert path == home.named / "TOY/raw/file.gz"
    assert path.read_bytes() == CONTENT
    source("http://127.0.0.1:9/gone")
    assert fetch("toy", home, say=said.append) == [path]
    assert "is there" in said[-1]


def test_the_next_place_is_tried(home, serve, source):
    source("http://127.0.0.1:9/nobody", serve())
    (path,) = fetch("toy", home)
    assert path.read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(home, serve, source):
    source(serve(), digest="0" * 64)
    with pytest.raises(DataError, match="wrong checksum"):
        fetch("toy", home)
    assert not any(path.is_file() for path in home.named.rglob("*"))


def test_a_cut_transfer_leaves_nothing(home, serve, source):
    source(serve(Cut))
    with pytest.raises(DataError, match="could not be fetched"):
        fetch("toy", home)
    assert not any(path.is_file() for path in home.named.rglob("*"))


def test_no_network(home, source):
    source("http://127.0.0.1:9/nobody")
    with pytest.raises(
        DataError, match=r"ConnectionError.*check the network, or copy the file to"
    ):
        fetch("toy", home)


def test_another_file_in_the_way_is_kept(home, source):
    source("http://127.0.0.1:9/nobody")
    path = home.named / "TOY/raw/file.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match="not the expected file: move it away"):
        fetch("toy", home)
    assert path.read_bytes() == b"mine"


def test_a_folder_that_cannot_be_made(home, source):
    source("http://127.0.0.1:9/nobody")
    (home.named / "TOY").touch()
    with pytest.raises(RunError, match="could not be written to"):
        fetch("toy", home)


def test_unknown_names(home):
    with pytest.raises(DataError, match="no dataset 'imagenet': known are digits, mnist"):
        fetch("imagenet", home)


def test_sources_are_complete():
    for name in registry.names("datasets"):
        assert needs(name)
        for source in spec_of(name).downloads:
            assert len(source.sha256) == 64
            assert int(source.sha256, 16)
            assert all(url.startswith("http") for url in source.urls)


def test_published_sums_are_those_of_the_real_files(real_data_home):
    found = 0
    for source in spec_of("mnist").downloads + spec_of("fashion-mnist").downloads:
        path = real_data_home.find((source.path,))
        if path is not None:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == source.sha256
            found += 1
    if not found:
        pytest.skip("the data folder has no original files")
