"""Real processes, really killed: nothing is lost or damaged, and the result is the same."""

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geco_experiments import open_run, run
from geco_experiments.report import build_report
from geco_experiments.runtime import atomic
from geco_experiments.runtime.errors import RunError
from geco_experiments.training import runner
from geco_experiments.training.loop import Loop


@pytest.fixture(scope="module")
def start():
    """Starts a fresh process for a run; forked from a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["geco_experiments.training.runner", "numpy.testing"])

    def begin(config, out):
        process = context.Process(target=run, args=(config, out))
        process.start()
        return process

    return begin


def kill_at_random(start, config, out, kills, seed):
    """Kill processes at random moments of their lives until so many were hit."""
    rng = random.Random(seed)
    span, hit, folder = 0.0, 0, 0
    while hit < kills:
        target = out / str(folder)
        begin = time.monotonic()
        process = start(config, target)
        # the first two lives are undisturbed; the second one, with everything imported in the
        # server, says how long a life is
        process.join(rng.uniform(0, span) if folder >= 2 else None)
        process.kill()  # may come just too late
        process.join()
        if process.exitcode == -signal.SIGKILL:
            hit += 1
        else:
            assert process.exitcode == 0
            span = time.monotonic() - begin
            open_run(target / config.name)
            folder += 1
    return [out / str(i) for i in range(2, folder + 1)]


def check(start, tiny, tmp_path, same_result, kills, seed):
    # a checkpoint after every step: kills hit the writing as often as the computing
    config = tiny(**{"execution.checkpoint_seconds": 0.0, "training.steps": 10})
    undisturbed = open_run(run(config, tmp_path / "undisturbed"))
    for folder in kill_at_random(start, config, tmp_path, kills, seed):
        result = open_run(run(config, folder))
        same_result(undisturbed, result)
        left = [path.name for path in (folder / config.name).iterdir()]
        assert sorted(left) == [".lock", "config.json", "model.pt", "run.nc"]


def test_twenty_random_kills(start, tiny, tmp_path, same_result):
    check(start, tiny, tmp_path, same_result, kills=20, seed=0)


@pytest.mark.slow
def test_two_hundred_random_kills(start, tiny, tmp_path, same_result):
    check(start, tiny, tmp_path, same_result, kills=200, seed=1)


def killed_inside(config, out, name, delay):
    """A run and its page in a process that dies so long after it begins to write a file."""
    within = atomic.replacing
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process at once, with no clean-up

    @contextlib.contextmanager
    def watched(path):
        with within(path) as part:
            if path.name == name:
                signal.setitimer(signal.ITIMER_REAL, delay)
            yield part
        signal.setitimer(signal.ITIMER_REAL, 0)

    atomic.replacing = runner.replacing = watched
    run(config, out)
    build_report(out)


def check_writing(tiny, tmp_path, same_result, kills, seed):
    config = tiny(**{"training.steps": 5})
    undisturbed = tmp_path / "undisturbed"
    run(config, undisturbed)
    page = build_report(undisturbed).stat().st_size
    rng, context = random.Random(seed), multiprocessing.get_context("fork")
    hit = dict.fromkeys(("model.pt", "index.html"), 0)
    span = dict.fromkeys(hit, 1e-3)
    folder = 0
    while min(hit.values()) < kills:
        name = min(hit, key=hit.get)
        out = tmp_path / str(folder)
        delay = rng.uniform(1e-6, span[name])
        process = context.Process(target=killed_inside, args=(config, out, name, delay))
        process.start()
        process.join()
        if process.exitcode == 0:  # written before the blow fell, or finished by an earlier one
            span[name] = max(span[name] / 2, 1e-5)
            folder += 1
            continue
        assert process.exitcode == -signal.SIGALRM
        hit[name] += 1
        span[name] *= 1.5
        index = out / "index.html"
        assert not index.exists() or index.stat().st_size == page
        if name == "model.pt":
            assert not (out / config.name / "run.nc").exists()
        if rng.random() < 0.5:  # half of the folders are hit more than once
            folder += 1
    for out in (tmp_path / str(i) for i in range(folder + 1)):
        result = run(config, out)
        build_report(out)
        same_result(open_run(undisturbed / config.name), open_run(result))
        left = sorted(path.name for path in result.parent.iterdir())
        assert left == [".lock", "config.json", "model.pt", "run.nc"]
        assert sorted(path.name for path in out.iterdir()) == sorted([config.name, "index.html"])


def test_kills_inside_model_saving_and_page_writing(tiny, tmp_path, same_result):
    check_writing(tiny, tmp_path, same_result, kills=1, seed=0)


@pytest.mark.slow
def test_twenty_kills_inside_each(tiny, tmp_path, same_result):
    check_writing(tiny, tmp_path, same_result, kills=20, seed=1)


OUT_OF_MEMORY = {"model.hidden": 2048, "training.steps": 4, "training.batch_size": 5000,
                 "training.marginal_samples": 0}  # fmt: skip


def without_memory(config, out, answer):
    """A run whose process may take no more memory from its third step on."""
    advance = Loop.advance

    def limited_advance(loop):
        if loop.step == 2:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken, resource.RLIM_INFINITY))
        advance(loop)

    Loop.advance = limited_advance
    try:
        run(config, out)
    except RunError as error:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        answer.put(str(error))
    else:
        answer.put("no error")


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="limits its own memory")
def test_out_of_memory_in_the_middle_of_a_run(tiny, tmp_path, same_result):
    """Activations of 41 MB, which must be taken anew at every step, find no room."""
    config = tiny(**OUT_OF_MEMORY, **{"execution.checkpoint_seconds": 0.0})
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    process = context.Process(target=without_memory, args=(config, tmp_path / "out", answer))
    process.start()
    text = answer.get()
    process.join()
    assert "the memory is not enough" in text
    assert "training.batch_size" in text
    folder = tmp_path / "out" / config.name
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "run.nc").exists()
    same_result(*(open_run(run(config, tmp_path / name)) for name in ("out", "undisturbed")))


def test_the_command_killed_and_started_again(tmp_path, tiny, same_result):
    config = tiny(**{"training.steps": 200, "execution.checkpoint_seconds": 0.0})
    words = [
        sys.executable, "-m", "geco_experiments", "run", "--out", str(tmp_path / "out"), "--quiet",
        "--dataset.train-limit", "100", "--dataset.test-limit", "50", "--model", "mlp-vae",
        "--latents", "4", "--model.hidden", "16", "--kappa", "0.2", "--steps", "200",
        "--batch-size", "32", "--training.marginal-samples", "20", "--device", "cpu",
        "--execution.checkpoint-seconds", "0", "--execution.threads", "1",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "out" / config.name / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not checkpoint.with_name("run.nc").exists()
    subprocess.run(words, env=environment, check=True, capture_output=True)
    undisturbed = open_run(run(config, tmp_path / "undisturbed"))
    same_result(undisturbed, open_run(checkpoint.parent))


def limited(config, out, size, answer):
    """A run that may write no file larger than `size` bytes, as if the disk were full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        run(config, out)
    except RunError as error:
        answer.put(str(error))
    else:
        answer.put("no error")


@pytest.mark.parametrize("size", [100, 3000, 20_000])
def test_no_room(tiny, tmp_path, same_result, size):
    config = tiny(**{"execution.checkpoint_seconds": 0.0})
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    process = context.Process(target=limited, args=(config, tmp_path / "out", size, answer))
    process.start()
    text = answer.get()
    process.join()
    assert "could not be written to" in text
    assert "nothing there was changed" in text
    assert not list(tmp_path.glob("out/*/.geco-tmp*"))
    # with room again, the same command goes on to the same result
    undisturbed = open_run(run(config, tmp_path / "undisturbed"))
    same_result(undisturbed, open_run(run(config, tmp_path / "out")))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk(tiny, tmp_path, same_result, small_disk):
    config = tiny(**{"execution.checkpoint_seconds": 0.0})
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(40 * 1024))
    with pytest.raises(RunError, match="the disk is full"):
        run(config, small_disk)
    assert ballast.stat().st_size == 40 * 1024
    assert not list(small_disk.glob("*/.geco-tmp*"))
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    undisturbed = open_run(run(config, tmp_path / "undisturbed"))
    same_result(undisturbed, open_run(run(config, small_disk)))


def test_an_unwritable_folder(tiny, tmp_path):
    if os.geteuid() == 0:
        folder = "/proc/self/fdinfo"  # where not even root may write
    else:
        (tmp_path / "out").mkdir(mode=0o500)
        folder = tmp_path / "out"
    with pytest.raises(RunError, match="could not be written to"):
        run(tiny(), folder)
