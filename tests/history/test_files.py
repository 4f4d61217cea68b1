"""The files of the state directory: nobody else reads them, and no link leads tsmon elsewhere."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tsmon.history.files import open_to_others
from tsmon.history.store import Store, StoreError


@pytest.fixture(autouse=True)
def everybody_reads() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


async def test_every_file_is_of_this_user_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for _ in range(2):
        store = await Store.open(tmp_path)
        assert set(modes(tmp_path).values()) == {0o600}
        assert {"tsmon.db", "tsmon.db-wal", "tsmon.db-shm", "tsmon.lock"} == set(modes(tmp_path))
        await store.close()
        (tmp_path / "tsmon.db").chmod(0o644)


@pytest.mark.parametrize("name", ["tsmon.lock", "tsmon.db", "tsmon.db-wal"])
@pytest.mark.parametrize("there", [True, False])
async def test_a_link_is_not_followed(name: str, there: bool, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if there:
        target.write_text("somebody's")
    state = tmp_path / "state"
    state.mkdir()
    (state / name).symlink_to(target)
    with pytest.raises(StoreError, match=r"symbolic link.*remove it") as refused:
        await Store.open(state)
    assert name in str(refused.value)
    assert target.exists() == there
    assert not there or target.read_text() == "somebody's"


def test_a_directory_that_others_may_write_is_named_with_the_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert f"chmod o-w {tmp_path}" in open_to_others(tmp_path)
    tmp_path.chmod(0o770)
    assert open_to_others(tmp_path) == ""
