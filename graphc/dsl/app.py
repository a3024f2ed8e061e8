"""Command-line flags and the start of a script, as `tf.app` and `tf.flags` had them.

Owns the table of flags.  Must not know graphs.  Invariant: flags are read from the command line once, at first use.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any


class _Flags:
    """The flags' values as attributes."""

    def __init__(self) -> None:
        self.__dict__["_parser"] = argparse.ArgumentParser(allow_abbrev=False)
        self.__dict__["_values"] = {}
        self.__dict__["_defaults"] = {}
        self.__dict__["_parsed"] = False

    def _define(self, name: str, default: Any, text: str | None, kind: Callable[[str], Any]) -> None:
        if name not in self._defaults:
            options: dict[str, Any] = {"nargs": "?", "const": True} if kind is _boolean else {}
            self._parser.add_argument(f"--{name}", default=default, type=kind, help=text, **options)
            if kind is _boolean:
                self._parser.add_argument(f"--no{name}", dest=name, action="store_false", help=argparse.SUPPRESS,
                                          default=argparse.SUPPRESS)
        self._defaults[name] = default
        self.__dict__["_parsed"] = False

    def _parse(self, arguments: Sequence[str] | None = None) -> list[str]:
        """Read the flags and return what is left of the command line."""
        known, rest = self._parser.parse_known_args(sys.argv[1:] if arguments is None else list(arguments))
        self._values.update({k: v for k,
                             v in vars(known).items() if k not in self._values or v != self._defaults.get(k)})
        self.__dict__["_parsed"] = True
        return list(rest)

    def __getattr__(self, name: str) -> Any:
        if name not in self._defaults:
            raise AttributeError(f"there is no flag {name!r}")
        if not self._parsed:
            self._parse()
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self._defaults.setdefault(name, value)
        self._values[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._defaults

    def __iter__(self) -> Any:
        return iter(self._defaults)

    def __call__(self, argv: Sequence[str], known_only: bool = False) -> list[str]:
        return [argv[0], *self._parse(argv[1:])]

    def flag_values_dict(self) -> dict[str, Any]:
        """Return all flags and their values."""
        return {name: getattr(self, name) for name in self._defaults}


FLAGS = _Flags()


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "t", "1", "yes"):
        return True
    if text.lower() in ("false", "f", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def DEFINE_string(name: str, default: str | None, help: str | None = None) -> None:
    """Define a flag of text.  Source: tf.flags.DEFINE_string."""
    FLAGS._define(name, default, help, str)


def DEFINE_integer(name: str, default: int | None, help: str | None = None) -> None:
    """Define a flag of an int.  Source: tf.flags.DEFINE_integer."""
    FLAGS._define(name, default, help, int)


def DEFINE_float(name: str, default: float | None, help: str | None = None) -> None:
    """Define a flag of a float.  Source: tf.flags.DEFINE_float."""
    FLAGS._define(name, default, help, float)


def DEFINE_boolean(name: str, default: bool | None, help: str | None = None) -> None:
    """Define a flag of a bool: --name, --noname, --name=false.  Source: tf.flags.DEFINE_boolean."""
    FLAGS._define(name, default, help, _boolean)


DEFINE_bool = DEFINE_boolean


def run(main: Callable[[list[str]], Any] | None = None, argv: Sequence[str] | None = None) -> None:
    """Read the flags, call main(argv) with what is left, and exit with what it returns.  Source: tf.app.run."""
    given = list(sys.argv if argv is None else argv)
    rest = FLAGS(given)
    chosen: Any = main or sys.modules["__main__"].main
    sys.exit(chosen(rest))
