import pytest

from tests.container.image import Image


@pytest.fixture(scope="session")
def image() -> Image:
    return Image.built()
