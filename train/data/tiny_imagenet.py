"""Tiny-ImageNet as published: JPEG files of 64 x 64 pixels, in a folder or in a .zip.

    wnids.txt                           one WordNet id a line; the line number is the label
    words.txt                           WordNet id, tab, name (of many more classes)
    train/WNID/images/WNID_NUMBER.JPEG
    val/val_annotations.txt             file name, tab, WordNet id, tab, ...
    val/images/val_NUMBER.JPEG

The test images of the challenge have no labels: the validation part serves as the test part.
Source: Le & Yang (2015), Tiny ImageNet Visual Recognition Challenge, Stanford CS231N.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...engine.errors import DataError
from .dataset import Dataset, LabelledImages, check_labelled
from .files import MIB, parsing, read_bytes

SIZE = 64
_FOLDER = "tiny-imagenet-200"
_IMAGE_LIMIT = MIB
_TEXT_LIMIT = 16 * MIB
_MAX_CLASSES = 200
_MAX_IMAGES = 200_000  # the published training part has 100,000
_MAX_MEMBERS = 500_000
_WNID = re.compile(r"n\d{8}")
_VALIDATION_NAME = re.compile(r"val_\d+\.JPEG")


class _Folder:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def where(self, name: str) -> str:
        return str(self.root / name)

    def names(self, folder: str) -> list[str]:
        """The names of the files in `folder`, in any order."""
        with parsing(self.where(folder), "a folder of JPEG images"):
            return [path.name for path in (self.root / folder).iterdir()]

    def read(self, name: str, limit: int) -> bytes:
        return read_bytes(self.root / name, "a file of Tiny-ImageNet", limit)


class _Zip:
    """Members of a .zip below its folder tiny-imagenet-200, read in memory."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.by_folder: dict[str, list[str]] = {}
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise DataError(f"{path}: expected at most {_MAX_MEMBERS} members; got {len(members)}", path=path)
        for member in members:
            folder, _, name = member.filename.removeprefix(f"{_FOLDER}/").rpartition("/")
            if name:
                self.by_folder.setdefault(folder, []).append(name)

    def where(self, name: str) -> str:
        return f"{self.path}, {_FOLDER}/{name}"

    def names(self, folder: str) -> list[str]:
        """The names of the files in `folder`, in the order of the archive."""
        return self.by_folder.get(folder, [])

    def read(self, name: str, limit: int) -> bytes:
        with parsing(self.where(name), f"a member of at most {limit} bytes"):
            with self.archive.open(f"{_FOLDER}/{name}") as stream:
                content = stream.read(limit + 1)
            if len(content) > limit:
                raise ValueError("it is longer")
            return content


_Files = _Folder | _Zip


def read_folder(paths: Sequence[Path]) -> Dataset:
    """The data set from the extracted folder that holds the file `paths[0]`. DataError."""
    return _read(_Folder(paths[0].parent))


def read_zip(paths: Sequence[Path]) -> Dataset:
    """The data set from tiny-imagenet-200.zip at `paths[0]`, which is never extracted to disk. DataError."""
    with parsing(paths[0], f"a .zip with a folder {_FOLDER}"):
        archive = zipfile.ZipFile(paths[0])
    with archive:
        return _read(_Zip(paths[0], archive))


def _read(files: _Files) -> Dataset:
    wnids = _read_wnids(files)
    train = _decode(files, _training_files(files, wnids), len(wnids), "train")
    test = _decode(files, _validation_files(files, wnids), len(wnids), "val")
    return Dataset("tiny-imagenet", *train, *test, _read_names(files, wnids), allows_flip=True)


def _read_text(files: _Files, name: str) -> str:
    content = files.read(name, _TEXT_LIMIT)
    with parsing(files.where(name), "text in UTF-8"):
        return content.decode("utf-8")


def _read_wnids(files: _Files) -> list[str]:
    wnids = _read_text(files, "wnids.txt").split()
    bad = [wnid for wnid in wnids if not _WNID.fullmatch(wnid)]
    if bad or not 0 < len(wnids) <= _MAX_CLASSES or len(set(wnids)) < len(wnids):
        raise DataError(
            f"{files.where('wnids.txt')}: expected 1 to {_MAX_CLASSES} different WordNet ids "
            f"such as n02124075; got {len(wnids)}" + (f", among them {bad[0][:40]!r}" if bad else "")
        )
    return wnids


def _read_names(files: _Files, wnids: list[str]) -> tuple[str, ...]:
    """The names of the classes; a WordNet id without one stands for itself."""
    names = dict(line.split("\t", 1) for line in _read_text(files, "words.txt").splitlines() if "\t" in line)
    return tuple(names.get(wnid, wnid).strip() for wnid in wnids)


def _training_files(files: _Files, wnids: list[str]) -> list[tuple[str, int]]:
    """(name, label) of the training images: by class, then by number."""
    found = []
    for label, wnid in enumerate(wnids):
        folder = f"train/{wnid}/images"
        pattern = re.compile(rf"{wnid}_(\d{{1,9}})\.JPEG")
        numbered = sorted((int(m[1]), m[0]) for m in map(pattern.fullmatch, files.names(folder)) if m)
        if not numbered:
            raise DataError(f"{files.where(folder)}: expected images named {wnid}_NUMBER.JPEG; got none")
        found += [(f"{folder}/{name}", label) for _, name in numbered]
    return found


def _validation_files(files: _Files, wnids: list[str]) -> list[tuple[str, int]]:
    """(name, label) of the validation images, in the order of val_annotations.txt."""
    annotations = "val/val_annotations.txt"
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    found = []
    for number, line in enumerate(_read_text(files, annotations).splitlines(), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if not _VALIDATION_NAME.fullmatch(name) or wnid not in label_of:
            raise DataError(
                f"{files.where(annotations)}, line {number}: expected val_NUMBER.JPEG, a tab and an id of "
                f"wnids.txt; got {line[:60]!r}"
            )
        found.append((f"val/images/{name}", label_of[wnid]))
    return found


def _decode(files: _Files, named: list[tuple[str, int]], n_classes: int, part: str) -> LabelledImages:
    """The images of one part, in order. Cost: about 0.2 ms an image."""
    if len(named) > _MAX_IMAGES:
        raise DataError(f"{files.where(part)}: expected at most {_MAX_IMAGES} images; got {len(named)}")
    decode = _jpeg_decoder()
    images = np.empty((len(named), SIZE, SIZE, 3), np.uint8)
    for i, (name, _) in enumerate(named):
        content = files.read(name, _IMAGE_LIMIT)
        with parsing(files.where(name), f"a JPEG image of {SIZE} x {SIZE} pixels"):
            images[i] = decode(content)
    labels = np.array([label for _, label in named], dtype=np.int64)
    return check_labelled(images, labels, n_classes, files.where(part))


def _jpeg_decoder() -> Callable[[bytes], np.ndarray]:
    """A function from the bytes of a JPEG to uint8 (64, 64, 3) that checks the size before it decodes."""
    from PIL import Image

    def decode(content: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.size != (SIZE, SIZE):
                raise ValueError(f"{image.width} x {image.height} pixels")
            return np.asarray(image.convert("RGB"))

    return decode
