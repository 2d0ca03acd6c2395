"""What the whole suite needs."""

import signal

import pytest


def pytest_configure():
    # A suite that was started in the background inherits that Ctrl-C is ignored, and so do the
    # programs that it starts; tests that interrupt would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Nothing that this machine remembers decides a test, and the suite leaves nothing behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QWIDGETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
