"""TinyGen's bare-metal platform: everything it needs lies in this folder or on PATH."""

from platformio.public import PlatformBase


class TinygenPlatform(PlatformBase):
    """A platform without packages."""

    def is_embedded(self) -> bool:
        """Lists an upload target for every board, although no package brings an uploader."""
        return True
