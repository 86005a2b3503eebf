import page_browser
import pytest


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A browser for all tests of the report."""
    driver = page_browser.start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()
