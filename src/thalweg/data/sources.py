"""Where data sets come from: files are looked for, else downloaded, and their SHA-256 is checked.

Looked for in $THALWEG_DATA, then in the cache ($THALWEG_CACHE, or thalweg below the user's cache folder); what is
found nowhere is downloaded into the cache from its official address.
"""

import gzip
import hashlib
import lzma
import os
import re
import tarfile
import tempfile
import zlib
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from urllib.request import Request, urlopen
from zipfile import ZipFile

import torch
from torch import Tensor
from tqdm import tqdm

from thalweg.data.streams import Splits, stratified, take
from thalweg.vocabulary import Batch
from thalweg.weights import write_whole

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def imagenet_classes() -> tuple[str, ...]:
    """The thousand classes of ImageNet's challenge, in its order, each by the first of its names in WordNet.

    Russakovsky et al. 2015, arXiv:1409.0575.
    """
    return tuple(Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf8").splitlines())


class MissingData(FileNotFoundError):
    """A data set is neither on this machine nor to be had."""


def cache_folder() -> Path:
    """Where downloads are kept."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thalweg"
    return Path(os.environ.get("THALWEG_CACHE") or fallback)


def find(name: str) -> Path | None:
    """The file or folder of that relative name in $THALWEG_DATA or the cache, or None."""
    folders = [Path(os.environ["THALWEG_DATA"])] if os.environ.get("THALWEG_DATA") else []
    return next((folder / name for folder in [*folders, cache_folder()] if (folder / name).exists()), None)


def download(url: str, sha256: str) -> bytes:
    """The content of an address; MissingData if it cannot be had whole, ValueError if its SHA-256 is another."""
    try:
        with urlopen(Request(url, headers={"User-Agent": "thalweg"}), timeout=30) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            parts = []
            with tqdm(total=size or None, unit="B", unit_scale=True, desc=Path(url).name, leave=False, disable=None) as bar:
                while part := answer.read(1 << 20):
                    parts.append(part)
                    bar.update(len(part))
        content = b"".join(parts)
        if len(content) < size:
            raise OSError(f"the connection ended after {len(content):,} of {size:,} bytes")
    except (OSError, HTTPException) as error:  # an address that does not answer is an OSError too
        raise MissingData(
            f"{Path(url).name} is neither in THALWEG_DATA ({os.environ.get('THALWEG_DATA', 'not set')}) nor in "
            f"{cache_folder()}, and {url} cannot be downloaded: {error}"
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{url} gave a file of SHA-256 {found}, expected {sha256}; nothing of it was kept")
    return content


def fetch(name: str, url: str, sha256: str) -> bytes:
    """The content of a file, found or downloaded; ValueError if its SHA-256 is another.

    MissingData where it is nowhere and cannot be downloaded.
    """
    if path := find(name):
        content = path.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != sha256:
            raise ValueError(f"{path}: SHA-256 {found}, expected {sha256}; remove the file to have it downloaded")
        return content
    content = download(url, sha256)
    path = cache_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: part.write_bytes(content))
    return content


def archive(name: str, sha256: str, origin: str) -> ZipFile:
    """A zip file that lies nowhere as it is: found, its SHA-256 checked.   MissingData says where its files are from."""
    if not find(name):
        raise MissingData(
            f"{name} is neither in THALWEG_DATA ({os.environ.get('THALWEG_DATA', 'not set')}) nor in {cache_folder()}; "
            f"its files are from {origin}"
        )
    return ZipFile(BytesIO(fetch(name, origin, sha256)))


def idx(content: bytes) -> Tensor:
    """The tensor of a gzipped IDX file, the format of MNIST: type and rank, extents, then bytes in row order.

    ValueError if it is damaged or of another type.
    """
    try:
        raw = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"IDX: not a whole gzip file: {error}") from error
    if raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"IDX: expected a file of unsigned bytes, its header is {raw[:4].hex()!r}")
    shape = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis]) for axis in range(raw[3])]
    values = torch.frombuffer(bytearray(raw), dtype=torch.uint8)[4 + 4 * raw[3] :]
    if len(values) != torch.Size(shape).numel():
        raise ValueError(f"IDX: {len(values):,} values, its header says {shape}")
    return values.reshape(shape)


def _idx_splits(folder: str, url: str, sums: tuple[str, str, str, str], classes: tuple[str, ...]) -> Splits:
    names = [f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    files = [idx(fetch(f"{folder}/{name}", url + name, sha)) for name, sha in zip(names, sums, strict=True)]
    train = {"image": files[0][:, None], "label": files[1].long()}
    test = {"image": files[2][:, None], "label": files[3].long()}
    return split(train, test, classes)


def split(train: Batch, test: Batch, classes: tuple[str, ...], fraction: float = 0.1) -> Splits:
    """A validation part of the training data, stratified, the same for every run."""
    valid, rest = stratified(train["label"], fraction)
    return Splits(take(train, rest), take(train, valid), test, classes)


def fashion_mnist() -> Splits:
    """60,000 + 10,000 grey 28x28 images of ten kinds of clothes.   Xiao et al. 2017, arXiv:1708.07747.   D2L 3.5"""
    sums = (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    )
    address = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    return _idx_splits("fashion-mnist", address, sums, FASHION_CLASSES)


def mnist() -> Splits:
    """60,000 + 10,000 grey 28x28 handwritten digits.   LeCun et al. 1998.   LBDL 5.2"""
    sums = (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    )
    address = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    return _idx_splits("mnist", address, sums, tuple("0123456789"))


def digits() -> Splits:
    """1,797 grey 8x8 handwritten digits that scikit-learn carries; a fifth is the test set, a tenth of the rest validation."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    image = torch.from_numpy(loaded.images * (255 / 16)).round().to(torch.uint8)[:, None]
    examples = {"image": image, "label": torch.from_numpy(loaded.target).long()}
    test, rest = stratified(examples["label"], 0.2)
    return split(take(examples, rest), take(examples, test), tuple("0123456789"))


CIFAR10_RECORD = 1 + 3 * 32 * 32


def cifar10_records(content: bytes) -> Batch:
    """Images and labels of a file of CIFAR-10's binary form: records of a label byte and 32x32 red, green, blue bytes.

    ValueError if it is none.
    """
    if not content or len(content) % CIFAR10_RECORD:
        raise ValueError(f"CIFAR-10: {len(content)} bytes are no whole number of records of {CIFAR10_RECORD}")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(-1, CIFAR10_RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"CIFAR-10: a label is {int(records[:, 0].max())}, expected 0 to 9")
    return {"image": records[:, 1:].reshape(-1, 3, 32, 32), "label": records[:, 0].long()}


def _unpack_cifar10(archive: bytes, folder: Path) -> None:
    """The six files of the official archive in a folder that appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial,
        tarfile.open(fileobj=BytesIO(archive)) as members,
    ):
        (unpacked := Path(partial) / folder.name).mkdir()
        for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
            member = members.extractfile(f"{folder.name}/{name}")  # by name: the archive chooses no path
            assert member is not None
            (unpacked / name).write_bytes(member.read())
        if not folder.exists():  # another process may have been faster
            unpacked.rename(folder)


def cifar10() -> Splits:
    """60,000 colour 32x32 images of ten classes, or as many of them as are at hand.   Krizhevsky 2009.   D2L 13.13

    Reads cifar-10-batches-bin (data_batch_*.bin and test_batch*.bin, plain or .xz); a part of the files is enough.
    Downloads 170 MB where there is none.
    """
    folder = find("cifar-10/cifar-10-batches-bin") or find("cifar-10-batches-bin")
    if folder is None:
        sha256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
        folder = cache_folder() / "cifar-10" / "cifar-10-batches-bin"
        _unpack_cifar10(download("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", sha256), folder)

    def read(pattern: str) -> Batch:
        files = sorted(folder.glob(pattern))
        if not files:
            raise MissingData(f"{folder} holds no {pattern}")
        parts = []
        for file in files:
            try:
                content = file.read_bytes()
                parts.append(cifar10_records(lzma.decompress(content) if file.suffix == ".xz" else content))
            except (ValueError, lzma.LZMAError) as error:
                raise ValueError(f"{file} is damaged: {error}") from error
        return {name: torch.cat([part[name] for part in parts]) for name in ("image", "label")}

    return split(read("data_batch_*.bin*"), read("test_batch*.bin*"), CIFAR10_CLASSES)


def _text(name: str, url: str, sha256: str) -> str:
    """A text, from its file compressed by gzip if that is there; by the SHA-256 of the text itself."""
    if path := find(f"{name}.gz"):
        try:
            text = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if (found := hashlib.sha256(text).hexdigest()) != sha256:
            raise ValueError(f"{path}: its text has SHA-256 {found}, expected {sha256}")
        return text.decode()
    return fetch(name, url, sha256).decode()


def tiny_shakespeare() -> str:
    """1,115,394 characters of Shakespeare's plays.   Karpathy 2015"""
    url = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
    return _text("tiny-shakespeare/input.txt", url, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed")


def time_machine() -> str:
    """H. G. Wells's novel as D2L reads it: small letters, and one blank for all between them.   D2L 8.2"""
    url = "http://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
    text = _text("time-machine/timemachine.txt", url, "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516")
    return re.sub("[^a-z]+", " ", text.lower()).strip()


def penn_treebank() -> tuple[list[str], list[str], list[str]]:
    """929,589 + 73,760 + 82,430 words of the Wall Street Journal in lower case, sentences with <eos>.   Mikolov 2010, D2L 14.3

    Of 10,000 different words; rare ones are <unk>, numbers N.
    """
    sha256 = "310d8f602882a5716613815ed75596e5764ea84ed04c5630eebaaf2b943ec5aa"
    files = ZipFile(BytesIO(fetch("ptb/ptb.zip", "http://d2l-data.s3-accelerate.amazonaws.com/ptb.zip", sha256)))
    train, valid, test = (
        files.read(f"ptb/ptb.{part}.txt").decode().replace("\n", " <eos> ").split() for part in ("train", "valid", "test")
    )
    return train, valid, test


def text8() -> list[str]:
    """1,171,946 words of Wikipedia in small letters: the first 6,877,824 characters of text8.   Mahoney 2006"""
    name = "text8-slice/text8_first6.88MB.txt.xz"
    if not find(name):
        raise MissingData(f"{name} is not in THALWEG_DATA ({os.environ.get('THALWEG_DATA', 'not set')}); the text is the first "
                          "6,877,824 characters of http://mattmahoney.net/dc/text8.zip")  # fmt: skip
    sha256 = "02739831c8d1e456d12c3cf6c33e51bc625c8fbc1beff9d9da6d1ef04fc6837b"
    return lzma.decompress(fetch(name, "http://mattmahoney.net/dc/text8.zip", sha256)).decode().split()


def analogy_questions() -> str:
    """Google's 19,544 questions such as man, woman, king, queen, a line each, in 14 sections.   Mikolov et al. 2013"""
    url = "https://raw.githubusercontent.com/tmikolov/word2vec/master/questions-words.txt"
    sha256 = "8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36"
    return _text("word-vectors-eval/questions-words.txt", url, sha256)
