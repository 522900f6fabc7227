"""Trains a classifier, prints its test accuracy and the time, and saves it where asked.

    python benchmarks/classifiers.py --dataset mnist
    python benchmarks/classifiers.py --dataset cifar10 --device cuda --out cifar10.pt
    python benchmarks/classifiers.py --dataset cifar10 --quick       # a short run on a CPU

The data are read from the folder that GECO_DATA_HOME names (`MNIST/raw`, `FashionMNIST/raw`,
`cifar-10-batches-bin`; the files as they are published, or each compressed by gzip or xz).
"""

import argparse
import gzip
import lzma
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geco_models import SmallCNN, SmallResNet, accuracy, train_classifier

IDX_FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}


def read_bytes(path: Path) -> bytes:
    """The content of a file, whichever of its compressed forms is there."""
    for suffix, opener in (("", open), (".gz", gzip.open), (".xz", lzma.open)):
        candidate = path.with_name(path.name + suffix)
        if candidate.is_file():
            with opener(candidate, "rb") as file:
                return file.read()
    raise SystemExit(f"there is no {path} (nor .gz nor .xz of it): set GECO_DATA_HOME")


def read_idx(path: Path) -> np.ndarray:
    content = read_bytes(path)
    shape = np.frombuffer(content, ">i4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def read_data(name: str, part: str) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) and labels (n,), both 8-bit integers; `part` is "train" or "test"."""
    home = Path(os.environ.get("GECO_DATA_HOME", "."))
    if name == "cifar10":
        batches = [f"data_batch_{i}" for i in range(1, 6)] if part == "train" else ["test_batch"]
        content = b"".join(read_bytes(home / f"cifar-10-batches-bin/{b}.bin") for b in batches)
        rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        images, labels = rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]
    else:
        stem = home / IDX_FOLDERS[name] / {"train": "train", "test": "t10k"}[part]
        images = read_idx(stem.with_name(f"{stem.name}-images-idx3-ubyte"))[:, None]
        labels = read_idx(stem.with_name(f"{stem.name}-labels-idx1-ubyte"))
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.copy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist", choices=[*IDX_FOLDERS, "cifar10"])
    parser.add_argument("--epochs", type=int, help="3 for gray images, 40 for CIFAR-10")
    parser.add_argument("--width", type=int, help="channels of the first stage")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice if not given")
    parser.add_argument("--out", type=Path, help="where to save the classifier")
    parser.add_argument("--quick", action="store_true", help="one epoch over a tenth of the data")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)  # the weights are drawn from the global generator

    images, labels = read_data(args.dataset, "train")
    test_images, test_labels = read_data(args.dataset, "test")
    share = 10 if args.quick else 1
    images, labels = images[: len(images) // share], labels[: len(labels) // share]
    colour = args.dataset == "cifar10"
    if colour:
        model = SmallResNet(images.shape[1:], width=args.width or (16 if args.quick else 64))
    else:
        model = SmallCNN(images.shape[1:], width=args.width or 32)
    epochs = args.epochs or (1 if args.quick else 40 if colour else 3)
    model.to(args.device)
    print(f"{args.dataset}, {len(images)} images, {epochs} epochs, {args.device}", flush=True)
    print(model, flush=True)

    began, worked = time.perf_counter(), time.process_time()

    def progress(epoch: int, loss: float) -> None:
        seconds = time.perf_counter() - began
        print(f"epoch {epoch}/{epochs}: loss {loss:.4f}, {seconds:.0f} s", flush=True)

    train_classifier(
        model,
        images,
        labels,
        epochs=epochs,
        padding=4 if colour else 2,
        flip=colour,
        generator=torch.Generator().manual_seed(args.seed),
        progress=progress,
    )
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    score = accuracy(model, test_images, test_labels)
    print(f"test accuracy {score:.4f} on {len(test_labels)} images")
    print(f"{seconds:.0f} s of training, {cpu:.0f} CPU seconds")
    if args.out:
        model.cpu().save(args.out)
        print(f"saved to {args.out}")


if __name__ == "__main__":
    main()
