"""An edition on a web server or in a bucket, as a Zarr store that knows which files must be there.

Zarr reads a lost file as no data. On a disk, all files are looked for when an edition is opened. Over a network that
would be a request a file, so it is noticed when a file is read: one that the edition's record promises and that is not
there is an error.
"""

import re
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore

from pipeline.errors import MachineError, ProductError, product_error
from pipeline.products.national.edition_record import STORE_LAYERS, Edition, parse_edition
from pipeline.products.national.pyramid.levels import FACTORS, OVERVIEWS
from pipeline.untrusted.documents import MOST_BYTES

ADDRESS = re.compile(r"(?:https?|s3)://.")
"""How an address begins that is no path of this machine."""
_LEVEL_0 = re.compile(
    rf"(?:product\.zarr/(?:{'|'.join(STORE_LAYERS)})|generalised/landcover\.zarr/landcover)/c/(\d+)/(\d+)"
)
_TILES = re.compile(rf"(?:generalised/)?pyramid\.zarr/(?:{'|'.join(FACTORS)})/(?:\w+/c|count/c/0)/(\d+)/(\d+)")
_ALWAYS = re.compile(
    rf"(?:.*/)?[xy]/c/\d+|product\.zarr/coverage/c/.*|(?:generalised/)?pyramid\.zarr/(?:{'|'.join(OVERVIEWS)})/\w+/c/.*"
)


class EditionStore(WrapperStore[FsspecStore]):
    """The files of an edition by their paths from its folder or from a folder of it, to read."""

    def __init__(self, store: FsspecStore, address: str, edition: Edition, folder: str = "") -> None:
        super().__init__(store)
        self._address, self.edition, self._folder = address, edition, folder
        self._shards, self._tiles = frozenset(edition.digests), edition.grid.tiles_of(edition.digests)

    def __str__(self) -> str:
        return self._address

    def _with_store(self, store: FsspecStore) -> "EditionStore":
        return type(self)(store, self._address, self.edition, self._folder)

    def below(self, folder: str) -> "EditionStore":
        """The store of a folder of the edition, which has consolidated metadata of its own."""
        address = f"{self._address}/{folder}"
        return type(self)(FsspecStore.from_url(address, read_only=True), address, self.edition, f"{folder}/")

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a file; None where there is none and none was promised.

        Raises:
            ProductError: a promised file is not there.
        """
        found = await self._store.get(key, prototype, byte_range)
        if found is None and self._promised(self._folder + key):
            raise ProductError(f"{self._address}/{key}: shard is lost; copy the edition again")
        return found

    def _promised(self, key: str) -> bool:
        for pattern, there in ((_LEVEL_0, self._shards), (_TILES, self._tiles)):
            if match := pattern.fullmatch(key):
                return (int(match[1]), int(match[2])) in there
        return _ALWAYS.fullmatch(key) is not None


def open_store(address: str, number: int | None) -> EditionStore:
    """The store of an edition.

    Args:
        address: `https://…` or `s3://…`, of the national product or of an edition.
        number: of the edition; None for the one at this address, or the current one. Buckets have no link to it.

    Raises:
        MachineError: a package for this kind of address is not installed.
        ProductError: there is no edition, or it cannot be read.
    """
    base = address.rstrip("/")
    try:
        import fsspec

        files, root = fsspec.core.url_to_fs(base)
    except ImportError as error:
        raise MachineError(
            f"{base}: {error}; `pip install 'landcover-pipeline[remote]'`, and `pip install s3fs` for a bucket"
        ) from error
    below = ("", "/current") if number is None else ("", f"/editions/{number:06d}")
    for place in below:
        content = _read(files, f"{root}{place}/edition.json", base + place)
        if content is None:
            continue
        edition = parse_edition(content, base + place)
        if number in (None, edition.number):
            return EditionStore(FsspecStore.from_url(base + place, read_only=True), base + place, edition)
    names = " or ".join(f"{base}{place}/edition.json" for place in below)
    raise ProductError(f"{names}: not found; name an edition's folder, such as {base}/editions/000001")


def _read(files: Any, path: str, shown: str) -> bytes | None:
    with product_error(f"{shown}/edition.json: cannot be read", ValueError):
        try:
            content: bytes = files.cat_file(path)
        except FileNotFoundError:
            return None
        if len(content) > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES} bytes")
        return content
