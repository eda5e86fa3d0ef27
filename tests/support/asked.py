"""What a command asks of the parts behind it, noted in order by stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Asked(list[Any]):
    """Calls as tuples of a name and what was given."""

    @contextmanager
    def within(self, name: str, *given: Any) -> Iterator[None]:
        """A stand-in for a context: its begin and its end are noted."""
        self.append((f"begin {name}", *given))
        yield
        self.append((f"end {name}",))

    def note(self, name: str, answer: Any = None) -> Callable[..., Any]:
        """A stand-in for a function that gives `answer`."""

        def noted(*given: Any, **how: Any) -> Any:
            self.append((name, *given, *how.items()))
            return answer

        return noted
