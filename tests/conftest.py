"""What the whole suite needs."""

import signal


def pytest_configure():
    # A suite that was started in the background inherits that Ctrl-C is ignored, and so do the
    # programs that it starts; tests that interrupt would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
