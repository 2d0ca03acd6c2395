"""A widget that shows what goes wrong in its callbacks, which Jupyter would keep to its log."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets as tl

if TYPE_CHECKING:
    from collections.abc import Iterator

_logger = logging.getLogger(__name__)


class OffTheGridError(tl.TraitError):
    """A choice that the present grid does not have."""


class ProblemsShown(anywidget.AnyWidget):
    """Shows exceptions of callbacks in the widget; what raised stops, the rest goes on.

    Attributes
    ----------
    problem : str
        What went wrong last, for people; empty if nothing did or it was dismissed.
    """

    problem = tl.Unicode("", read_only=True).tag(sync=True)

    def dismiss(self) -> None:
        """Take away what `problem` says."""
        self.set_trait("problem", "")

    @contextmanager
    def problems_shown(self, where: str) -> Iterator[None]:
        """Show an exception, with its traceback in the log, instead of raising it.

        Parameters
        ----------
        where : str
            What was being done, for the beginning of a sentence.
        """
        try:
            yield
        except Exception as error:
            _logger.exception(where)
            self._show(where, error)

    def tell(self, name: str, value: object) -> None:
        """Set a trait in the course of work that must go on, whatever observers of it raise."""
        with self.problems_shown("An observer of the Explorer failed"):
            self.set_trait(name, value)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take moves of the browser; what observers of them raise is shown, and raised."""
        try:
            super().set_state(sync_data)
        except OffTheGridError:
            # The move was made on a grid that has been trained anew since: the page is told where
            # things are now.
            self.send_state([name for name in sync_data if name in self.keys])
        except Exception as error:
            self._show("An observer of the Explorer failed", error)
            raise

    def _show(self, where: str, error: Exception) -> None:
        message = f"{where}. {type(error).__name__}: {error}"
        if message == self.problem:
            # Said anew: whoever has asked again waits for an answer.
            self.dismiss()
        self.set_trait("problem", message)
