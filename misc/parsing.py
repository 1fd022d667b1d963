"""How every command reads its words.

Dashes in a flag are taken for underscores, a wrong flag or value is told of in one line with the
nearest one, and help may be cut short (`| head`).
"""
import argparse
import difflib
import sys
from collections.abc import Collection, Sequence
from typing import IO, Any, NoReturn

from misc import ending


def nearest(word: str, words: Collection[str]) -> str:
    """Return what a mistyped word may stand for, as ' (cam_scales?)'; '' where nothing is near."""
    near = difflib.get_close_matches(word, words, n=2, cutoff=0.75)
    return f' ({" or ".join(near)}?)' if near else ''


def underscored(word: str, flags: Collection[str]) -> str:
    """Return a word of a command line with underscores where it is one of the flags so."""
    flag, equals, value = word.partition('=')
    changed = '--' + flag[2:].replace('-', '_')
    return changed + equals + value if flag.startswith('--') and changed in flags else word


class Parser(argparse.ArgumentParser):
    """A parser that tells of a wrong flag as every error is told: in one line.

    It names the nearest flag or value, takes dashes in a flag for underscores, and wants flags
    written in full.
    """

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Sequence[str] | None = None,
                         namespace: argparse.Namespace | None = None) -> tuple:
        words = [underscored(word, self._option_string_actions)
                 for word in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(words, namespace)

    def parse_args(self, args: Sequence[str] | None = None,
                   namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag.lstrip('-') for flag in self._option_string_actions]
            shown = [word + nearest(word.split('=')[0].lstrip('-'),
                                    flags).replace('(', '(--').replace(' or ', ' or --')
                     if word.startswith('--') else word for word in unknown]
            self.error(f'unrecognized arguments: {" ".join(shown)}')
        return found

    def named(self, words: Sequence[str]) -> frozenset[str]:
        """Return the flags that the words of a command line name, by the first name of each.

        Without dashes, as the attributes of what is parsed.
        """
        flags = (underscored(word, self._option_string_actions).partition('=')[0]
                 for word in words)
        return frozenset(self._option_string_actions[flag].dest for flag in flags
                         if flag in self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += nearest(str(value), [str(choice) for choice in action.choices])
            raise

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:
        with ending.to_reader():
            (file or sys.stderr).write(message or '')

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message} (--help lists the flags)\n')
