"""Small files in the published formats of the data sets, written from arrays, for the tests of the readers.

The writers share no code with the readers: they follow the descriptions that the authors of the data sets
publish.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
WNIDS = ("n01443537", "n02124075", "n07747607")
Part = tuple[np.ndarray, np.ndarray]  # images (N, H, W, C) and labels (N,)


def idx_bytes(values: np.ndarray) -> bytes:
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def write_idx_set(folder: Path, train: Part, test: Part, *, packed: bool = True) -> None:
    arrays = (train[0][..., 0], train[1], test[0][..., 0], test[1])
    for name, values in zip(MNIST_FILES, arrays, strict=True):
        content = idx_bytes(values)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)


def planes(images: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) -> (N, 3072): all red, then all green, then all blue."""
    return np.stack([images[..., c].reshape(len(images), -1) for c in range(3)], axis=1).reshape(
        len(images), -1
    )


def cifar_binary(part: Part, *, coarse: bool) -> bytes:
    records = []
    for row, label in zip(planes(part[0]), part[1], strict=True):
        records.append((b"\x07" if coarse else b"") + bytes([label]) + row.tobytes())
    return b"".join(records)


def cifar_python(part: Part, *, label_key: bytes) -> bytes:
    """A batch as Python 2 pickles it: protocol 2, strings are bytes, NumPy's reconstructor makes the array."""
    pixels = planes(part[0])

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    shape = integer(len(pixels)) + integer(pixels.shape[1]) + b"\x86"
    raw = b"T" + struct.pack("<I", pixels.size) + pixels.tobytes()
    reconstruct = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
    )
    dtype = (
        b"cnumpy\ndtype\nq\x04U\x02u1K\x00K\x01\x87Rq\x05(K\x03U\x01|NNN"
        + integer(-1)
        + integer(-1)
        + b"K\x00tb"
    )
    array = reconstruct + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"
    labels = b"]q\x06(" + b"".join(integer(int(label)) for label in part[1]) + b"e"
    names = b"]q\x07(" + b"".join(short(b"frog_s_%06d.png" % i) for i in range(len(pixels))) + b"e"
    items = short(b"data") + array + short(label_key) + labels + short(b"filenames") + names
    return b"\x80\x02}q\x00(" + items + b"u."


def cifar_files(name: str, form: str, train: Part, test: Part) -> dict[str, bytes]:
    """The files of one of the four forms by their paths below the folder that holds them."""
    coarse, binary = name == "cifar100", form == "binary"
    folder = {"cifar10": "cifar-10-batches-", "cifar100": "cifar-100-"}[name]
    folder += ("bin" if binary else "py") if name == "cifar10" else form
    ending = ".bin" if binary else ""

    def encode(part: Part) -> bytes:
        if binary:
            return cifar_binary(part, coarse=coarse)
        return cifar_python(part, label_key=b"fine_labels" if coarse else b"labels")

    if coarse:
        return {f"{folder}/train{ending}": encode(train), f"{folder}/test{ending}": encode(test)}
    size = len(train[1]) // 5
    batches = {
        f"{folder}/data_batch_{i + 1}{ending}": encode(
            (train[0][i * size :][:size], train[1][i * size :][:size])
        )
        for i in range(5)
    }
    return {**batches, f"{folder}/test_batch{ending}": encode(test)}


def tar_gz(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def cifar_writer(name: str, form: str, *, packed: bool) -> Callable[[Path, Part, Part], None]:
    def write(folder: Path, train: Part, test: Part) -> None:
        files = cifar_files(name, form, train, test)
        if packed:
            archive = f"{'cifar-10' if name == 'cifar10' else 'cifar-100'}-{form}.tar.gz"
            files = {archive: tar_gz(files)}
        write_files(folder, files)

    return write


def write_svhn(folder: Path, train: Part, test: Part) -> None:
    for name, (images, labels) in {"train": train, "test": test}.items():
        codes = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        variables = {"X": np.moveaxis(images, 0, -1), "y": codes}
        savemat(folder / f"{name}_32x32.mat", variables, do_compression=True)


def jpeg(image: np.ndarray) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(image).save(packed, "JPEG", quality=95)
    return packed.getvalue()


def tiny_files(train: Part, test: Part) -> dict[str, bytes]:
    root = "tiny-imagenet-200"
    words = "".join(f"{wnid}\tname of {wnid}, and more\n" for wnid in (*WNIDS, "n00000001"))
    files = {f"{root}/wnids.txt": ("\n".join(WNIDS) + "\n").encode(), f"{root}/words.txt": words.encode()}
    for i, (image, label) in enumerate(zip(*train, strict=True)):
        files[f"{root}/train/{WNIDS[label]}/images/{WNIDS[label]}_{i}.JPEG"] = jpeg(image)
    lines = []
    for i, (image, label) in enumerate(zip(*test, strict=True)):
        files[f"{root}/val/images/val_{i}.JPEG"] = jpeg(image)
        lines.append(f"val_{i}.JPEG\t{WNIDS[label]}\t0\t0\t62\t62\n")
    return {**files, f"{root}/val/val_annotations.txt": "".join(lines).encode()}


def write_tiny_folder(folder: Path, train: Part, test: Part) -> None:
    write_files(folder, tiny_files(train, test))


def write_tiny_zip(folder: Path, train: Part, test: Part) -> None:
    with zipfile.ZipFile(folder / "tiny-imagenet-200.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tiny_files(train, test).items():
            archive.writestr(name, content)


def _plain_idx(folder: Path, train: Part, test: Part) -> None:
    write_idx_set(folder, train, test, packed=False)


Writer = Callable[[Path, Part, Part], None]
FORMATS: dict[str, tuple[str, Writer]] = {
    "mnist-gz": ("mnist", write_idx_set),
    "mnist-unpacked": ("mnist", _plain_idx),
    "fashion-mnist-gz": ("fashion-mnist", write_idx_set),
    **{
        f"{name}-{form}-{'archive' if packed else 'folder'}": (name, cifar_writer(name, form, packed=packed))
        for name in ("cifar10", "cifar100")
        for form in ("binary", "python")
        for packed in (False, True)
    },
    "svhn-mat": ("svhn", write_svhn),
    "tiny-imagenet-folder": ("tiny-imagenet", write_tiny_folder),
    "tiny-imagenet-zip": ("tiny-imagenet", write_tiny_zip),
}
N_CLASSES = {"mnist": 10, "fashion-mnist": 10, "cifar10": 10, "cifar100": 100, "svhn": 10, "tiny-imagenet": 3}
_SHAPES = {"mnist": (28, 28, 1), "fashion-mnist": (28, 28, 1), "tiny-imagenet": (64, 64, 3)}


def draw_parts(name: str, seed: int = 0) -> tuple[Part, Part]:
    """A training part of 10 images and a test part of 4 that the formats of the data set `name` can hold.

    Tiny-ImageNet's images are flat, as JPEG keeps these to a grey level or two, and come in the order of its
    reader.
    """
    rng = np.random.default_rng(seed)
    shape = _SHAPES.get(name, (32, 32, 3))

    def part(n: int) -> Part:
        labels = rng.integers(0, N_CLASSES[name], n)
        if name != "tiny-imagenet":
            return rng.integers(0, 256, (n, *shape), dtype=np.uint8), labels
        labels = np.sort(np.arange(n) % N_CLASSES[name])
        flat = rng.integers(0, 256, (n, 1, 1, 3), dtype=np.uint8)
        return np.ascontiguousarray(np.broadcast_to(flat, (n, *shape))), labels

    return part(10), part(4)
