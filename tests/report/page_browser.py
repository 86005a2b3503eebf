"""A headless Chromium that opens pages from disk, and what the tests ask of every page."""

import shutil

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
KEYS = {"left": "\ue012", "right": "\ue014", "escape": "\ue00c", "backspace": "\ue003"}


def start(profile):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium, which the dev extra installs")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))


def row(group, completion, reward, prompt=""):
    return {"group": group, "prompt": prompt or f"What is {group}?", "completion": completion, "reward": reward}


class Page:
    """One page in the browser. Rollouts near the window are drawn, and waited for unless the page's head hides them."""

    def __init__(self, driver, path, *, width=1280, height=1000, dark=False, drawn=True):
        self.driver = driver
        mobile = width < 500
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": mobile})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        driver.get_log("browser")  # empties it
        driver.get(path.resolve().as_uri())
        if drawn:
            self.one(".tokens [data-token]")

    def script(self, text, *arguments):
        return self.driver.execute_script("return " + text, *arguments)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.wait(lambda: next(iter(self.all(selector)), None), f"no {selector}")

    def text(self, selector):
        """Without regard to whether and where it is shown."""
        return self.one(selector).get_property("textContent")

    def texts(self, selector):
        return self.script("[...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def wait(self, condition, message=""):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 180, poll_frequency=0.05).until(lambda _: condition(), message)

    def choose(self, index):
        before = self.one("#chosen h3")
        self.one(f"#list button[data-index='{index}']").click()
        self.wait(lambda: self.one("#chosen h3") != before)
        assert self.text("#chosen h3").startswith(f"Prompt {index + 1} ")

    def radio(self, name, value):
        self.one(f"input[name={name}][value={value}] + span").click()

    def tokens(self, rollout):
        """The elements of a rollout's tokens that are drawn."""
        return self.all(f".tokens[data-rollout='{rollout}'] [data-token]")

    def hover(self, element):
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.act().move_to_element(element).perform()
        self.wait(lambda: self.one("#card").is_displayed())

    def keys(self, *names):
        self.act().send_keys(*(KEYS[name] for name in names)).perform()

    def act(self):
        from selenium.webdriver.common.action_chains import ActionChains

        return ActionChains(self.driver)

    def card(self):
        """The card's numbers by name."""
        cells = {cell.get_attribute("data-name"): cell.text for cell in self.all("#card [data-name]")}
        return {name: text.replace("\N{MINUS SIGN}", "-").removesuffix(" bits") for name, text in cells.items()}

    def is_well(self):
        """Whether nothing is on the console since the page was opened, and the page is no wider than the window."""
        complaints = [entry["message"] for entry in self.driver.get_log("browser")]
        return (complaints, self.script("document.documentElement.scrollWidth - window.innerWidth")) == ([], 0)
