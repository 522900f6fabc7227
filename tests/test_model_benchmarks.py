"""The scripts that count and time the models' steps run from end to end, at small sizes."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def rows(text):
    """The cells of a table, by the first of each row."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[1:]}


def test_the_accelerator_script_runs_on_a_cpu_and_says_so(capsys, tmp_path):
    import accelerator

    out = tmp_path / "table.md"
    quick = ["--device", "cpu", "--quick", "--no-compile", "--out", str(out)]
    accelerator.main(quick)
    text = capsys.readouterr().out
    assert out.read_text(encoding="utf-8") == text
    assert "says nothing of an accelerator" in text
    table = rows(text)
    assert set(table) == {"float32", "bf16"}
    assert table["float32"]["times float32"] == "1.00"
    for row in table.values():
        assert float(row["images/s"]) > 0


def test_the_accelerator_script_asks_for_a_gpu(capsys):
    import accelerator

    if accelerator.torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        accelerator.main([])
    assert "no CUDA device" in capsys.readouterr().err


def test_kernels_are_counted_for_every_model(capsys):
    import kernels

    kernels.main(["--steps", "2"])
    table = rows(capsys.readouterr().out)
    assert set(table) == set(kernels.MODELS)
    for name, row in table.items():
        model, error, patches = (
            int(row[key].replace(",", "")) for key in ("model", "RE", "RE + PNCC")
        )
        # what an objective adds does not depend on the model
        assert 50 < error - model < 80, name
        assert 40 < patches - error < 65, name


def test_sharing_spares_gradients_of_weights(capsys):
    import kernels

    counts = {}
    for steps in ("4", "8"):
        kernels.main(["--only", "convdraw", "convdraw-checkpoint", "--steps", steps])
        table = rows(capsys.readouterr().out)
        counts[steps] = {name: int(row["weight gradients"]) for name, row in table.items()}
    assert counts["4"]["convdraw"] == counts["8"]["convdraw"]
    assert counts["4"]["convdraw-checkpoint"] < counts["8"]["convdraw-checkpoint"]
