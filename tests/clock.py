"""An event loop for tests of what happens later, which need not wait for it."""

import asyncio


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose timers run when a test says so."""

    ahead = 0.0

    def time(self):
        return super().time() + self.ahead
