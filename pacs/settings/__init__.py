"""All settings, one tree, read once: defaults in `tree`, then `pacs.toml` in the home, then `PACS_*` in the environment.

Every setting has an environment name: ``PACS_`` + section + ``_`` + field, in capitals (``PACS_DICOM_PORT``); the AE title is
``PACS_AE_TITLE``. `docs/settings.md` and the commented `pacs.toml` are written from the tree (`reference()`, `as_toml()`),
so that they cannot drift. Rooms never see this package: `archive.py` gives each part only its own values.
"""

from pacs.settings.reading import SECRET_VARIABLES, default_home, environment_names, load
from pacs.settings.tree import (
    BrokerSettings,
    DatabaseSettings,
    DeidSettings,
    DicomSettings,
    KeysSettings,
    LogSettings,
    ProcessingSettings,
    Settings,
    StoreSettings,
    WebSettings,
)
from pacs.settings.writing import as_environment, as_toml, reference

__all__ = [
    "SECRET_VARIABLES",
    "BrokerSettings",
    "DatabaseSettings",
    "DeidSettings",
    "DicomSettings",
    "KeysSettings",
    "LogSettings",
    "ProcessingSettings",
    "Settings",
    "StoreSettings",
    "WebSettings",
    "as_environment",
    "as_toml",
    "default_home",
    "environment_names",
    "load",
    "reference",
]
