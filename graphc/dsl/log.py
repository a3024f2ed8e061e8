"""Messages of scripts, as `tf.logging` had them: Python's logging under the name "graphc".

Owns nothing but the names.
"""
from __future__ import annotations

import logging

DEBUG = logging.DEBUG
INFO = logging.INFO
WARN = WARNING = logging.WARNING
ERROR = logging.ERROR
FATAL = logging.CRITICAL

_logger = logging.getLogger("graphc")

debug = _logger.debug
info = _logger.info
warn = warning = _logger.warning
error = _logger.error
fatal = _logger.critical
log = _logger.log


def set_verbosity(level: int) -> None:
    """Show messages of `level` and above.  Source: tf.logging.set_verbosity."""
    if not _logger.handlers:
        _logger.addHandler(logging.StreamHandler())
    _logger.setLevel(level)


def get_verbosity() -> int:
    """Return the level that is shown.  Source: tf.logging.get_verbosity."""
    return _logger.getEffectiveLevel()
