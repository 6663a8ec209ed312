"""The index of predictions."""

from pathlib import Path

import pytest

from segnetr.config.shards import Shard
from segnetr.errors import WriteError
from segnetr.workflows.prediction.index import PredictIndex


def test_output_folder_that_cannot_be_made_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    index = PredictIndex(
        out=tmp_path / "file" / "out", shard=Shard(number=1, count=1), model={"sha256": ""}
    )
    with pytest.raises(WriteError, match="out"):
        index.write([], [])
