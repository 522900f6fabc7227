"""Where each dataset's files come from and the checksums that prove them.

The sums are those of the original files; `geco data fetch` accepts nothing else.
"""

from dataclasses import dataclass

__all__ = ["CIFAR_10_FILES", "FASHION_MNIST_FILES", "MNIST_FILES", "OLIVETTI_FILES", "Source"]


@dataclass(frozen=True)
class Source:
    """One file that can be downloaded.

    Attributes:
        path: Where it goes, relative to the data folder.
        sha256: Its checksum.
        urls: Places that serve it, tried in order.
    """

    path: str
    sha256: str
    urls: tuple[str, ...]


_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def _idx(folder: str, bases: tuple[str, ...], sums: dict[str, str]) -> tuple[Source, ...]:
    return tuple(
        Source(f"{folder}/raw/{name}", digest, tuple(base + name for base in bases))
        for name, digest in sums.items()
    )


MNIST_FILES = _idx(
    "MNIST",
    _MNIST,
    {
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
)

FASHION_MNIST_FILES = _idx(
    "FashionMNIST",
    _FASHION,
    {
        "train-images-idx3-ubyte.gz": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte.gz": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
)
CIFAR_10_FILES = (
    Source(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    ),
)
OLIVETTI_FILES = (
    Source(
        "scikit_learn_data/olivettifaces.mat",
        "b612fb967f2dc77c9c62d3e1266e0c73d5fca46a4b8906c18e454d41af987794",
        ("https://ndownloader.figshare.com/files/5976027",),
    ),
)
