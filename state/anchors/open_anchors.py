"""The artefact store that the settings name."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from state.anchors.contract import AnchorStore
from state.anchors.folder_anchors import FolderAnchors
from state.secrets import hide_password
from state.settings import PREFIX, BadSettings, StoreSettings


def open_anchors(settings: StoreSettings) -> AnchorStore:
    """Return the store of anchors; nothing is asked of it yet. Raises BadSettings."""
    url = settings.anchors_url
    if not url:
        return FolderAnchors(settings.anchors_dir, made_later=True)
    if "://" not in url:
        return FolderAnchors(Path(url))
    if url.startswith("file://"):
        return FolderAnchors(Path(url2pathname(urlsplit(url).path)))
    from state.anchors.remote_anchors import RemoteAnchors  # fsspec and what it brings are not needed for a folder

    try:
        return RemoteAnchors(url, settings.anchor_copies_dir, settings.anchors_config, settings.anchors_timeout_s)
    except ImportError as error:
        ours = "; `pip install headrace[s3]` brings it" if url.startswith(("s3://", "s3a://")) else ""
        raise BadSettings(f"{PREFIX}ANCHORS_URL={hide_password(url)}: {error}{ours}") from None
    except (ValueError, TypeError) as error:
        raise BadSettings(f"{PREFIX}ANCHORS_URL or {PREFIX}ANCHORS_CONFIG: {error}") from None
