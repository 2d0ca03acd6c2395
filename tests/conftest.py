"""What the whole suite needs."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small import small_sweep


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


@pytest.fixture(scope="session")
def sweep():
    """That of `small`; modules that need another have their own. It is changed in copies alone."""
    return small_sweep()


@pytest.fixture(scope="session")
def documentation(tmp_path_factory):
    """The folder of the built documentation; a warning fails the build."""
    folder = tmp_path_factory.mktemp("documentation")
    source = Path(__file__).parents[1] / "docs"
    command = ("sphinx", "-q", "-W", "--keep-going", "-b", "html", source, folder)
    run = subprocess.run(
        [sys.executable, "-m", *command], check=False, stderr=subprocess.PIPE, text=True
    )
    assert run.returncode == 0, run.stderr
    return folder
